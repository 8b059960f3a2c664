policy "saving" {
  request "cache" {
    config {
      ttl = "1h"
      key = request.headers["x-conversation"]
    }
  }

  response "cache" {}
}
