policy "tenant" {
  authorize "scopes" {
    config {
      all = [request.method == "GET" ? "files:read" : "files:write"]
    }
  }
}
