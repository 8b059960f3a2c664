abi     = 1
version = "0.1.0"
summary = "Find out who calls by a signed request (RFC 9421, hmac-sha256)."

grant "state" {
  reason = "remembers which signatures were used"
}

hook "authenticate" {
  sees {
    headers    = ["*"]
    attributes = ["request.method", "request.scheme", "request.host", "request.path", "request.query"]
    body       = buffer("1MiB")
  }

  argument "cover" {
    type    = list(string)
    default = ["@method", "@authority", "@path", "@query"]
    summary = "Components a signature has to cover: names of fields, or @method, @authority, @scheme, @target-uri, @request-target, @path, @query."
  }

  argument "window" {
    type    = duration
    default = "5m"
    summary = "How long after its creation a signature counts."
  }

  argument "skew" {
    type    = duration
    default = "30s"
    summary = "How far the caller's clock may differ."
  }

  argument "replay" {
    type    = string
    default = "nonce"
    one_of  = ["nonce", "signature", "allow"]
    summary = "nonce: a signature needs a nonce, which counts once. signature: without a nonce the signature itself counts once. allow: a signature counts as often as it comes."
  }

  argument "body" {
    type    = string
    default = "digest"
    one_of  = ["digest", "unchecked"]
    summary = "digest: a body needs a signed content-digest, and is compared with it. unchecked: that is left to whoever is behind, and bodies may be longer than 1 MiB."
  }

  argument "tag" {
    type    = string
    default = ""
    pattern = "[ !#-\\[\\]-~]*"
    summary = "Only signatures with this parameter tag count. Empty: with any, or none."
  }

  argument "keep" {
    type    = bool
    default = false
    summary = "Leave signature and signature-input in the request. Otherwise they are removed once the caller is known."
  }

  block "key" {
    labels   = ["id"]
    repeat   = true
    required = true
    summary  = "Somebody who may sign. id is the signature's parameter keyid."

    argument "secret" {
      type      = string
      required  = true
      sensitive = true
      summary   = "What both sides know, of at least 16 octets."
    }

    argument "encoding" {
      type    = string
      default = "text"
      one_of  = ["text", "base64"]
      summary = "How the secret is written."
    }

    argument "account" {
      type     = string
      required = true
      summary  = "The account that the caller acts for."
    }

    argument "name" {
      type    = string
      default = ""
      summary = "What the key is called in logs and receipts."
    }

    argument "scopes" {
      type    = list(string)
      default = []
      summary = "What the caller may do."
    }
  }
}
