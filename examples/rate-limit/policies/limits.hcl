policy "fair" {
  summary = "Enough for anybody's browser."

  admit "ratelimit" {
    config {
      key   = request.remote
      rate  = "50/s"
      burst = 100
    }
  }

  response "ratelimit" {}
}

policy "careful" {
  summary = "Too few attempts to guess a password."

  admit "ratelimit" {
    config {
      key  = request.remote
      rate = "5/m"
    }
  }

  response "ratelimit" {}
}
