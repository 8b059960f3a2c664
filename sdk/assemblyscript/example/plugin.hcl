abi     = 1
version = "0.1.0"
summary = "Greet the upstream in the caller's name."

hook "request" {
  sees {
    headers    = ["x-name"]
    attributes = ["model"]
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
}
