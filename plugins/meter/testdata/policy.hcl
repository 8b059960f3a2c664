policy "paid" {
  admit "meter" {}

  account "meter" {
    config {
      tags = { model = response.usage.model, fuel = "${fuel}" }
    }
  }
}
