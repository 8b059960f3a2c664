policy "members" {
  authenticate "authz" {
    config {
      url   = "http://127.0.0.1:9002/whoami"
      cache = "5s"
    }
  }

  request "authz" {}
}
