policy "partners" {
  authenticate "hmac" {
    config {
      cover = ["@method", "@authority", "@path", "@query", "content-type"]

      key "acme-2026" {
        secret  = "32 random octets, from a secret"
        account = "acct_acme"
        scopes  = ["orders:write"]
      }
    }
  }
}
