policy "tenant" {
  authenticate "apikey" {}

  authenticate "apikey" {
    config {
      header = "x-api-key"
    }
  }
}
