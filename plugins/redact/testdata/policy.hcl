policy "no_pii" {
  request "redact" {
    config {
      kinds = ["email", "phone", "card", "iban", "resident_id", "secret"]
      allow = ["example.com"]
    }
  }

  response "redact" {}
}
