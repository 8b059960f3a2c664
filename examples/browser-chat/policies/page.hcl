policy "page" {
  summary = "Let one page call, and tell browsers how to treat what they get."

  authenticate "cors" {
    config {
      origins = [var.page]
      headers = ["authorization", "content-type"]
      expose  = ["postern-exchange", "x-cache", "retry-after"]
    }
  }

  response "cors" {}

  response "headers" {
    config {
      security = "api"
    }
  }
}

policy "paid" {
  summary = "Know the caller, keep prompts in bounds, answer from the cache what was answered before, charge the rest."

  authenticate "apikey" {}

  authorize "scopes" {
    config {
      all = ["models:call"]
    }
  }

  admit "meter" {}

  route "models" {}

  request "guard" {
    config {
      max_characters = 100000
      jailbreak      = "deny"
    }
  }

  request "cache" {
    config {
      ttl = "1h"
    }
  }

  response "cache" {}

  account "meter" {}
}
