abi     = 1
version = "0.1.0"
summary = "Hold the most a call can cost, settle what it did cost."

grant "ledger" {
  reason = "places and settles holds"
}

hook "admit" {
  sees {
    attributes = ["identity.account", "model", "usage.max"]
  }
}

hook "account" {
  needs = [admit]

  sees {
    attributes = ["hold", "response.usage", "response.usage.estimated"]
  }

  argument "tags" {
    type        = map(string)
    per_request = true
    default     = {}
    summary     = "Written on the ledger entry."
  }
}
