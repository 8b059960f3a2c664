abi     = 1
version = "0.1.0"
summary = "Let a caller pass who has the scopes a request needs."

hook "authorize" {
  sees {
    attributes = ["identity.scopes"]
  }

  argument "all" {
    type        = list(string)
    per_request = true
    summary     = "Scopes of which the caller needs every one."
  }

  argument "any" {
    type        = list(string)
    per_request = true
    summary     = "Scopes of which the caller needs one, besides all."
  }

  argument "wildcards" {
    type    = bool
    default = false
    summary = "A scope of the caller's that is * or ends in :* stands for every scope that begins with what is before the *."
  }

  argument "challenge" {
    type    = string
    default = "Bearer"
    pattern = "[A-Za-z][A-Za-z0-9-]*|"
    summary = "The authentication scheme in the field www-authenticate of a refusal. Empty: there is no such field."
  }
}
