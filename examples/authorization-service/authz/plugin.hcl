abi     = 1
version = "0.1.0"
summary = "Ask an authorization service who calls."

grant "fetch" {
  reason = "sends the caller's credentials to the service named by url"
}

hook "authenticate" {
  needs = [request]

  sees {
    headers = ["authorization"]
  }

  argument "url" {
    type     = url
    required = true
    summary  = "Where to ask: a GET with the caller's field authorization."
  }

  argument "cache" {
    type    = duration
    default = "5s"
    summary = "How long an answer is good for the same credentials; 0s asks each time."
  }
}

hook "request" {
  sees {
    attributes = ["identity.account"]
  }
}
