# Vault Agent beside the platform: it logs in, keeps the token of [vault] fresh, and writes the other secrets into the files that team.toml
# names. Addresses, role and paths are examples.

vault {
  address = "https://vault.example:8200"
  ca_cert = "/etc/falaj/ca.pem"
}

auto_auth {
  method "approle" {
    config = {
      role_id_file_path                   = "/etc/falaj/vault/role-id"
      secret_id_file_path                 = "/etc/falaj/vault/secret-id"
      remove_secret_id_file_after_reading = false
    }
  }
  sink "file" {
    config = {
      path = "/run/falaj/vault-token"
      mode = 0600
    }
  }
}

template {
  destination = "/run/falaj/redis.password"
  perms       = "0600"
  contents    = "{{ with secret \"secret/data/falaj\" }}{{ .Data.data.redis }}{{ end }}"
}
template {
  destination = "/run/falaj/pgpass"
  perms       = "0600"
  contents    = "{{ with secret \"secret/data/falaj\" }}db.example:5432:falaj:falaj:{{ .Data.data.postgresql }}{{ end }}"
}
