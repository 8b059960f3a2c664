policy "paid" {
  summary = "Know the caller, hold the price, pick the provider, charge what was used."

  authenticate "apikey" {}

  admit "meter" {}

  route "models" {}

  account "meter" {}
}
