policy "spread" {
  route "models" {
    config {
      sticky = identity.account
    }
  }
}
