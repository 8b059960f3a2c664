abi     = 1
version = "0.1.0"
summary = "Set, add and remove header fields of requests and responses."

argument "set" {
  type        = map(string)
  per_request = true
  default     = {}
  summary     = "Fields by name, each replacing all of that name. One whose value is empty or null is left as it is."
}

argument "add" {
  type        = map(string)
  per_request = true
  default     = {}
  summary     = "Fields by name, each put beside what there is. One whose value is empty or null is not added."
}

argument "remove" {
  type    = list(string)
  default = []
  pattern = "[A-Za-z0-9!#$%&'*+.^_`|~-]+"
  summary = "Names of fields that go. This happens first."
}

hook "request" {}

hook "response" {
  answers = true

  sees {
    headers    = ["strict-transport-security", "x-content-type-options", "x-frame-options", "referrer-policy", "content-security-policy", "permissions-policy", "cross-origin-resource-policy"]
    attributes = ["request.scheme"]
  }

  argument "security" {
    type    = string
    default = "none"
    one_of  = ["none", "api", "page"]
    summary = "The fields browsers ask for, where the upstream did not set them: api for answers that nobody is to show as a page, page for web pages."
  }
}
