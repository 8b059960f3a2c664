# What customers were answered is kept for them for a month, sealed under their account's own key, unless they ask not to.

variable "listen" {
  default = "127.0.0.1:8443"
  summary = "Where customers connect."
}

state "badger" {
  dir = "data"
}

usage {
  keep = "30d"
  sums = "400d"
}

privacy {
  version   = "2026-1"
  effective = "2026-01-01"
  contact   = "https://example.com/contact"

  # A creations block that kept for longer would not load.
  data_class "creation" {
    retention = "30d"
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

upstream "sandbox" {
  format    = openai
  endpoints = ["http://127.0.0.1:9001"]
  shares    = [content]
  retention = "0d"
  training  = false
}

model "small" {
  max_output = 4096

  target {
    upstream = upstream.sandbox
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
  policies = [policy.paid]
  models   = [model.small]

  creations {
    keep    = "30d"
    item    = "1MiB"
    account = "100MiB"
  }
}
