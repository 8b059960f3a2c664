policy "known" {
  summary = "Identify the caller."

  authenticate "apikey" {}
}

policy "tenant" {
  summary = "Identify the caller, hold it to its limits and charge it."

  authenticate "apikey" {}

  require "model_scope" {
    condition = contains(identity.scopes, "models:call")
    status    = 403
    message   = "The key lacks the scope models:call."
  }

  admit "ratelimit" {
    timeout = "500ms"

    config {
      key   = identity.account
      rate  = "100/s"
      burst = 200
    }
  }

  admit "meter" {}

  route "models" {}

  # Tells customers in the reply's headers how much of their rate is left.
  response "ratelimit" {}

  account "ratelimit" {}

  account "meter" {
    config {
      tags = { route = route.name }
    }
  }
}
