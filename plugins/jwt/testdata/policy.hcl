policy "staff" {
  authenticate "jwt" {
    config {
      issuer         = "https://login.example.com"
      audience       = ["https://api.example.com"]
      account        = "/tenant/id"
      account_prefix = "staff-"
      name           = "email"
      attributes     = { department = "department" }

      jwks {
        url        = "https://login.example.com/.well-known/jwks.json"
        algorithms = ["RS256", "ES256"]
      }
    }
  }

  # The tokens of one service, with a key that is handed over once.
  authenticate "jwt" {
    config {
      issuer   = "billing"
      required = ["exp", "jti"]
      max_age  = "5m"

      key "billing-2026" {
        algorithm = "EdDSA"
        pem       = <<-PEM
          -----BEGIN PUBLIC KEY-----
          MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
          -----END PUBLIC KEY-----
        PEM
      }
    }
  }
}
