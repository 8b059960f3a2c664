policy "edge" {
  request "headers" {
    config {
      set    = { "x-account" = identity.account, "x-client" = request.headers["user-agent"] }
      remove = ["user-agent", "x-debug"]
    }
  }

  response "headers" {
    config {
      security = "api"
      remove   = ["server", "x-powered-by"]
      set      = { "x-request-id" = request.id }
    }
  }
}
