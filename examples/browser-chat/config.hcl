# A model API that web pages may call: cross-origin calls, rules for prompts, replies from the cache, clean headers.

variable "listen" {
  default = "127.0.0.1:8443"
  summary = "Where customers connect."
}

variable "page" {
  default = "https://app.example.com"
  summary = "The origin of the page that calls."
}

state "badger" {
  dir = "data"
}

listener "public" {
  address   = var.listen
  protocols = [http1, http2, http3]

  tls {
    self_signed = ["localhost", "127.0.0.1"]
  }
}

plugin "cors" {
  source = "../../plugins/cors"
}

plugin "apikey" {
  source = "../../plugins/apikey"
  grants = [accounts]
}

plugin "scopes" {
  source = "../../plugins/scopes"
}

plugin "meter" {
  source = "../../plugins/meter"
  grants = [ledger]
}

plugin "models" {
  source = "../../plugins/models"
}

plugin "guard" {
  source = "../../plugins/guard"

  limits {
    cpu = "1s"
  }
}

plugin "cache" {
  source = "../../plugins/cache"
  grants = [cache]
}

plugin "headers" {
  source = "../../plugins/headers"
}

upstream "provider" {
  format    = openai
  endpoints = ["http://127.0.0.1:9902"]
}

model "small" {
  max_output = 4096

  target {
    upstream = upstream.provider
    model    = "sandbox-small"
  }

  price {
    per    = 1000000
    input  = 0.15
    output = 0.60
  }
}

route "chat" {
  listener = listener.public
  match    = "POST /v1/chat/completions"
  policies = [policy.page, policy.paid]
  models   = [model.small]
}

# Browsers ask first, without a key. The cors stage answers before anybody has to be known.
route "preflight" {
  listener = listener.public
  match    = "OPTIONS /v1/{path...}"
  policies = [policy.page]

  respond {
    status = 404
  }
}
