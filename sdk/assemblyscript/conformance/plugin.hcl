# The conformance guest's manifest, the same in every language. README.md says what the guest does.
abi     = 1
version = "1.0.0"
summary = "Do what the argument do says, and tell what was seen."

grant "accounts" {
  reason = "finds who presented API keys belong to"
}

grant "ledger" {
  reason = "places, settles and releases holds"
}

grant "state" {
  reason = "keeps what it is told to keep"
}

grant "cache" {
  reason = "keeps answers for accounts"
}

grant "fetch" {
  reason = "asks the services it is told to ask"
}

# Slots 0 to 5 are a hook's headers and attributes; the arguments for each request follow in this order.

argument "do" { # slot 6
  type        = string
  per_request = true
  default     = ""
  summary     = "The script."
}

argument "text" { # slot 7
  type        = string
  per_request = true
}

argument "flag" { # slot 8
  type        = bool
  per_request = true
}

argument "number" { # slot 9
  type        = number
  per_request = true
}

argument "list" { # slot 10
  type        = list(string)
  per_request = true
}

argument "map" { # slot 11
  type        = map(number)
  per_request = true
}

argument "object" { # slot 12
  type        = object({ name = string, on = bool, shares = list(number), tags = map(string) })
  per_request = true
}

argument "deep" { # slot 13: 32 lists around a string
  type        = list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(list(string))))))))))))))))))))))))))))))))
  per_request = true
}

argument "tags" { # slot 14
  type        = map(string)
  per_request = true
}

# What CONFIGURE brings.

argument "setup" {
  type    = string
  default = ""
  summary = "The script that runs while a stage is configured."
}

argument "ratio" {
  type = number
}

argument "size" {
  type    = bytes
  default = "64KiB"
}

argument "wait" {
  type    = duration
  default = "1500ms"
}

argument "price" {
  type = money
}

argument "origin" {
  type = url
}

argument "network" {
  type = cidr
}

argument "pattern" {
  type = regex
}

argument "words" {
  type = list(string)
}

block "rule" {
  labels = ["name"]
  repeat = true

  argument "most" {
    type = number
  }

  block "when" {
    argument "hours" {
      type = list(number)
    }
  }
}

hook "authenticate" {
  sees {
    headers    = ["x-one", "x-many"]
    attributes = ["request.method", "request.length", "request.query", "request.tls.version"]
  }
}

hook "authorize" {
  sees {
    headers    = ["x-one", "x-many"]
    attributes = ["request.method", "identity.account", "identity.scopes", "request.headers[\"x-one\"]"]
    body       = buffer("64KiB")
  }
}

hook "admit" {
  sees {
    headers    = ["*"]
    attributes = ["request.method", "identity.account", "model", "usage.max", "hold"]
    body       = stream
  }
}

hook "route" {
  sees {
    headers    = ["x-one", "x-many"]
    attributes = ["request.method", "targets", "call.stream", "model"]
    body       = events
  }
}

hook "request" {
  sees {
    headers    = ["x-one", "x-many"]
    attributes = ["request.method", "target", "usage.max", "hold"]
    body       = buffer("15MiB")
  }
}

hook "response" {
  sees {
    headers    = ["*"]
    attributes = ["request.method", "response.status", "response.usage", "response.usage.estimated", "response.headers[\"x-one\"]"]
    body       = events
  }
}

hook "account" {
  sees {
    headers    = ["*"]
    attributes = ["request.method", "response.status", "response.usage", "hold", "attribute[\"conformance.saw\"]"]
  }
}
