abi     = 1
version = "0.1.0"
summary = "Let web pages of other origins call: answers preflights and adds the CORS fields."

hook "authenticate" {
  sees {
    headers    = ["origin", "access-control-request-method", "access-control-request-headers", "access-control-request-private-network"]
    attributes = ["request.method"]
  }

  argument "origins" {
    type     = list(string)
    required = true
    summary  = "Who may call: `\"https://app.example.com\"`, `\"https://*.example.com\"` for every name below it, `\"http://localhost:*\"` for every port, `\"null\"` for pages without an origin, `\"*\"` for all."
  }

  argument "methods" {
    type    = list(string)
    default = ["GET", "HEAD", "POST"]
    pattern = "[A-Z]+"
    summary = "Methods a page may use."
  }

  argument "headers" {
    type    = list(string)
    default = ["authorization", "content-type"]
    pattern = "[A-Za-z0-9!#$%&'+.^_`|~-]+|\\*"
    summary = "Fields a page may send besides the few it always may; `*` for all."
  }

  argument "expose" {
    type    = list(string)
    default = []
    pattern = "[A-Za-z0-9!#$%&'+.^_`|~-]+"
    summary = "Fields of the reply that a page may read besides the few it always may."
  }

  argument "credentials" {
    type    = bool
    default = false
    summary = "Whether a browser sends its cookies along. Not with the origin `*`."
  }

  argument "max_age" {
    type    = duration
    default = "10m"
    summary = "How long a browser may keep the answer to a preflight, at most a day."
  }

  argument "private_network" {
    type    = bool
    default = false
    summary = "Whether a public page may call although this gateway stands in a private network."
  }
}

hook "response" {
  needs   = [authenticate]
  answers = true

  sees {
    headers = ["vary"]
  }
}
