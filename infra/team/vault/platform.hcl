# Policy of the platform's token: the key is made, wraps, unwraps, is rotated and trimmed. It can be neither exported nor removed, nor made so.
# With another mount or key than `transit` and `falaj`, change the paths.

path "transit/keys/falaj" {
  capabilities       = ["read", "update"]
  allowed_parameters = { "type" = ["aes256-gcm96"] }
}
path "transit/keys/falaj/rotate" {
  capabilities = ["update"]
}
path "transit/keys/falaj/config" {
  capabilities       = ["update"]
  allowed_parameters = { "min_decryption_version" = [], "min_encryption_version" = [] }
}
path "transit/keys/falaj/trim" {
  capabilities = ["update"]
}
path "transit/encrypt/falaj" {
  capabilities = ["update"]
}
path "transit/decrypt/falaj" {
  capabilities = ["update"]
}
