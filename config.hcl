# The running example: `make run` starts exactly this. Every argument is explained in policies/README.md.

gateway {
  name     = "edge-1"
  requires = ">= 0.1"
}

variable "listen" {
  default = "127.0.0.1:8443"
  summary = "Where customers connect, over TLS."
}

variable "admin" {
  default = "127.0.0.1:9901"
  summary = "Where operators connect; loopback only."
}

variable "sandbox" {
  default = "http://127.0.0.1:9902"
  summary = "The built-in sandbox provider. Put a real provider's address here."
}

state "badger" {
  dir = "data"
}

ledger {
  currency = "USD"
  hold_ttl = "10m"
  retain   = "400d"
}

# The privacy policy. Everything personal that this configuration makes the program store, log, show to a plugin or share
# belongs to a data class, or it does not load: `postern privacy report` shows all of it, `postern privacy page` the policy.
privacy {
  version   = "1"
  effective = "2026-01-01"
  contact   = "privacy@example.com"
  operator  = "Example Ltd"

  data_class "content" {
    summary    = { en = "What you send to a model and what it answers.", zh = "您发送给模型的内容与模型的输出。" }
    purpose    = [deliver]
    basis      = contract
    retention  = "24h"
    recipients = [upstream.sandbox]
  }

  # With header.* a plugin may see any header; without it each one it sees has to be named, as "header.x-team".
  data_class "device" {
    fields    = ["client_address", "client_program", "client_page", "header.other", "header.*"]
    retention = "30d"
  }

  data_class "billing" {
    purpose   = [bill]
    basis     = legal_obligation
    retention = "400d"
  }
}

admin {
  address = var.admin
}

telemetry {
  log {
    level  = info
    format = text
  }
}

listener "public" {
  address   = var.listen
  protocols = [http1, http2, http3]

  tls {
    self_signed = ["localhost", "127.0.0.1", "::1"]
  }

  limits {
    header = "32KiB"
    body   = "10MiB"
  }
}

plugin "apikey" {
  source = "plugins/apikey"
  grants = [accounts]
}

plugin "ratelimit" {
  source = "plugins/ratelimit"
  grants = [state]
}

plugin "models" {
  source = "plugins/models"
}

plugin "meter" {
  source = "plugins/meter"
  grants = [ledger]
}

plugin "redact" {
  source = "plugins/redact"

  limits {
    cpu_per_kib = "2ms" # it looks through every octet of a prompt
  }
}

upstream "sandbox" {
  format    = openai
  endpoints = [var.sandbox]
  balance   = least_request

  # What it may receive, and what its provider does with that.
  shares    = [content]
  recipient = "the built-in sandbox"
  retention = "0d"
  training  = false

  timeouts {
    connect    = "2s"
    first_byte = "30s"
    idle       = "60s"
  }
}

model "small" {
  summary    = "Fast general model."
  max_output = 4096

  target {
    upstream = upstream.sandbox
    model    = "sandbox-small"
  }

  price {
    per    = 1000000
    input  = 0.15
    cached = 0.075
    output = 0.60
  }
}

model "large" {
  summary    = "Slower, better model, with the small one to fall back on."
  max_output = 8192

  target {
    upstream = upstream.sandbox
    model    = "sandbox-large"
    weight   = 9
  }

  target {
    upstream = upstream.sandbox
    model    = "sandbox-small"
    weight   = 1
  }

  price {
    per       = 1000000
    input     = 2.50
    cached    = 1.25
    output    = 10
    reasoning = 10
  }
}

model "embedding" {
  summary = "Text to vectors."

  target {
    upstream = upstream.sandbox
    model    = "sandbox-embedding"
  }

  price {
    per   = 1000000
    input = 0.02
  }
}

route "chat" {
  listener = listener.public
  match    = "POST /v1/chat/completions"
  policies = [policy.tenant, policy.no_pii]
  models   = [model.small, model.large]
  timeout  = "2m"
}

route "embeddings" {
  listener = listener.public
  match    = "POST /v1/embeddings"
  policies = [policy.tenant, policy.no_pii]
  models   = [model.embedding]
}

route "models" {
  listener = listener.public
  match    = "GET /v1/models"
  policies = [policy.known]
  models   = [model.small, model.large, model.embedding]
}

route "model" {
  listener = listener.public
  match    = "GET /v1/models/{model}"
  policies = [policy.known]
  models   = [model.small, model.large, model.embedding]
}

console {
  title = "Postern"
}

# The pages: what there is and what it costs, how it fares, and, for operators, all they do.
route "console" {
  listener = listener.public
  match    = "/"
  console  = true
}
