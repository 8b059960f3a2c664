abi     = 1
version = "0.1.0"
summary = "Find out who calls by a signed token (JWT)."

grant "fetch" {
  reason   = "fetches the key set of an issuer, where jwks is used"
  optional = true
}

grant "state" {
  reason   = "shares an issuer's key set between instances, where jwks is used"
  optional = true
}

hook "authenticate" {
  sees {
    headers = ["authorization"]
  }

  argument "issuer" {
    type     = string
    required = true
    summary  = "What the claim iss has to be. Empty: anything, which is right only where the keys sign for nobody else."
  }

  argument "audience" {
    type    = list(string)
    default = []
    summary = "Of these the claim aud has to be, or hold, one. Empty: a token that names an audience is refused."
  }

  argument "types" {
    type    = list(string)
    default = []
    summary = "What the header's typ may be, such as at+jwt for access tokens of RFC 9068. Empty: anything, or nothing."
  }

  argument "required" {
    type    = list(string)
    default = ["exp"]
    summary = "Claims that have to be there."
  }

  argument "leeway" {
    type    = duration
    default = "30s"
    summary = "How far the issuer's clock may differ."
  }

  argument "max_age" {
    type    = duration
    default = "0s"
    summary = "How old a token may be, by the claim iat. 0s: as old as its other claims allow."
  }

  argument "account" {
    type    = string
    default = "sub"
    summary = "The claim that becomes identity.account."
  }

  argument "account_prefix" {
    type    = string
    default = ""
    summary = "Written before the account, so that issuers can not name each other's."
  }

  argument "name" {
    type    = string
    default = ""
    summary = "The claim that becomes identity.name. Empty: none."
  }

  argument "scopes" {
    type    = string
    default = "scope"
    summary = "The claim that becomes identity.scopes: a list of texts, or a text with spaces between. Empty: none."
  }

  argument "attributes" {
    type    = map(string)
    default = {}
    summary = "Claims that become attributes of the plugin's own, by their names."
  }

  argument "scheme" {
    type    = string
    default = "Bearer"
    pattern = "[A-Za-z][A-Za-z0-9-]*"
    summary = "The authentication scheme before the token, compared without case."
  }

  argument "keep" {
    type    = bool
    default = false
    summary = "Leave the field authorization in the request. Otherwise it is removed once the caller is known, so that the token goes no further."
  }

  argument "token" {
    type        = string
    per_request = true
    default     = ""
    summary     = "The token from somewhere else, such as request.headers[\"x-token\"]. Where it is not empty it stands for the field authorization."
  }

  block "key" {
    labels  = ["id"]
    repeat  = true
    summary = "A key that tokens may be signed with, for one algorithm. id is the header's kid. One of pem, jwk and secret is written."

    argument "algorithm" {
      type     = string
      required = true
      one_of   = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "HS256", "HS384", "HS512"]
      summary  = "The header's alg."
    }

    argument "pem" {
      type    = string
      default = ""
      summary = "The public key, as a PEM block of type PUBLIC KEY or RSA PUBLIC KEY."
    }

    argument "jwk" {
      type      = string
      default   = ""
      sensitive = true
      summary   = "The key as a JSON Web Key, public or, for HS algorithms, symmetric."
    }

    argument "secret" {
      type      = string
      default   = ""
      sensitive = true
      summary   = "For HS algorithms: at least as many octets as the hash has."
    }

    argument "encoding" {
      type    = string
      default = "text"
      one_of  = ["text", "base64"]
      summary = "How the secret is written."
    }
  }

  block "jwks" {
    summary = "Keys that the issuer publishes. Needs the grants fetch and state."

    argument "url" {
      type     = url
      required = true
      summary  = "Where the key set is."
    }

    argument "algorithms" {
      type     = list(string)
      required = true
      one_of   = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
      summary  = "What the issuer signs with. A key that does not say its algorithm is taken when only one of these can be meant."
    }

    argument "refresh" {
      type    = duration
      default = "1h"
      summary = "How old the keys may become before they are fetched again."
    }

    argument "retry" {
      type    = duration
      default = "10s"
      summary = "The least time between fetches: for a key that is not known, and after a failure."
    }

    argument "stale" {
      type    = duration
      default = "24h"
      summary = "How much longer than refresh the keys go on being used when the issuer does not answer."
    }
  }
}
