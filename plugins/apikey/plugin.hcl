abi     = 1
version = "0.1.0"
summary = "Find out who calls by an API key."

grant "accounts" {
  reason = "looks up who a presented API key belongs to"
}

hook "authenticate" {
  sees {
    headers = ["authorization", "x-api-key", "x-goog-api-key", "api-key"]
  }

  argument "header" {
    type    = string
    default = "authorization"
    one_of  = ["authorization", "x-api-key", "x-goog-api-key", "api-key"]
    summary = "The header the key is in. It is removed once the caller is known, so that the key goes no further."
  }

  argument "scheme" {
    type    = string
    default = "Bearer"
    pattern = "[A-Za-z][A-Za-z0-9-]*|"
    summary = "The authentication scheme before the key, compared without case; for the header authorization alone. Empty: the whole value is the key."
  }

  argument "key" {
    type        = string
    per_request = true
    default     = ""
    summary     = "The key from somewhere else, such as request.headers[\"x-token\"]. Where it is not empty it stands for the header."
  }
}
