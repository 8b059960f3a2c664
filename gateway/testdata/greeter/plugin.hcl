abi     = 1
version = "1.0.0"
summary = "Greets by name and raises its voice: written from sdk/ABI.md alone."

grant "state" {
  reason = "counts how often each name was greeted"
}

hook "request" {
  sees {
    headers    = ["x-name"]
    attributes = ["request.method"]
  }

  argument "greeting" {
    type    = string
    default = "Hello"
    summary = "The word before the name."
  }

  argument "to" {
    type        = string
    per_request = true
    default     = ""
    summary     = "Who is greeted when the caller gives no name."
  }
}

hook "response" {
  needs = [request]

  sees {
    headers    = ["content-type"]
    attributes = ["response.status"]
    body       = stream
  }
}
