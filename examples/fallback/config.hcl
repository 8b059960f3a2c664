# One model, two providers. The second is asked when the first fails; the customer pays one price and sees one name.

variable "listen" {
  default = "127.0.0.1:8443"
  summary = "Where customers connect."
}

state "badger" {
  dir = "data"
}

# Both providers get what customers send; the policy page names them. One that trained on it would need basis = consent here.
privacy {
  version   = "2026-1"
  effective = "2026-01-01"
  contact   = "https://example.com/contact"

  data_class "content" {
    retention  = "30d"
    recipients = [upstream.first, upstream.second]
  }
}

listener "public" {
  address   = var.listen
  protocols = [http1, http2, http3]

  tls {
    self_signed = ["localhost", "127.0.0.1"]
  }
}

plugin "apikey" {
  source = "../../plugins/apikey"
  grants = [accounts]
}

plugin "models" {
  source = "../../plugins/models"
}

plugin "meter" {
  source = "../../plugins/meter"
  grants = [ledger]
}

secret "first" {
  file = "keys/first"
}

secret "second" {
  file = "keys/second"
}

upstream "first" {
  format    = openai
  endpoints = ["http://127.0.0.1:9001"]
  recipient = "First Models Ltd"
  shares    = [content]
  retention = "0d"
  training  = false

  headers = {
    authorization = "Bearer ${secret.first}"
  }
}

upstream "second" {
  format    = openai
  endpoints = ["http://127.0.0.1:9002"]
  recipient = "Second Models Inc"
  shares    = [content]
  retention = "30d"
  training  = false

  headers = {
    authorization = "Bearer ${secret.second}"
  }
}

model "small" {
  max_output = 4096

  target {
    upstream = upstream.first
    model    = "sandbox-small"
  }

  target {
    upstream = upstream.second
    model    = "sandbox-mini"
    weight   = 0
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
  policies = [policy.paid]
  models   = [model.small]
}
