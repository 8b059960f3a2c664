policy "browser" {
  authenticate "cors" {
    config {
      origins = ["https://app.example.com", "http://localhost:*"]
      headers = ["authorization", "content-type", "idempotency-key"]
      expose  = ["postern-exchange", "retry-after"]
    }
  }

  response "cors" {}
}
