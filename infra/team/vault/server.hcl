# Policy of an inference server's token on another machine than the platform's: it unwraps, nothing else.

path "transit/decrypt/falaj" {
  capabilities = ["update"]
}
