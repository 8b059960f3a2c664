policy "no_pii" {
  summary = "Nothing personal leaves: placeholders go to the provider, the originals come back in the reply."

  request "redact" {}

  response "redact" {}
}
