policy "limits" {
  admit "ratelimit" {
    timeout = "5ms"

    config {
      key    = identity.account
      rate   = "100/s"
      burst  = 200
      tokens = "100000/m"
    }
  }

  response "ratelimit" {}
  account "ratelimit" {}
}
