abi     = 1
version = "0.1.0"
summary = "Answer a request that was answered before, to the same account and word for word, from the cache."

grant "cache" {
  reason = "keeps replies for the account that got them"
}

hook "request" {
  sees {
    headers    = ["cache-control", "range", "content-encoding", "accept"]
    attributes = ["route.name", "request.method", "request.host", "request.path", "request.query", "model"]
    body       = buffer("1MiB")
  }

  argument "key" {
    type        = string
    per_request = true
    default     = ""
    summary     = "What else has to be the same besides route, method, address, model and body, such as request.headers[\"accept-language\"]."
  }

  argument "ttl" {
    type    = duration
    default = "10m"
    summary = "How long a reply is kept, from 1s to 30 days."
  }

  argument "max_size" {
    type    = bytes
    default = "1MiB"
    summary = "The largest reply that is kept, at most 4MiB."
  }
}

hook "response" {
  needs = [request]

  sees {
    headers    = ["content-type", "content-encoding", "cache-control", "set-cookie", "vary"]
    attributes = ["response.status"]
    body       = stream
  }
}
