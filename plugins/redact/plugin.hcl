abi     = 1
version = "0.1.0"
summary = "Keep personal data from the upstream: placeholders go out, the originals come back in the reply."

hook "request" {
  sees {
    headers = ["content-type", "content-encoding"]
    body    = buffer("10MiB")
  }

  argument "kinds" {
    type    = list(string)
    default = ["email", "phone", "card", "iban", "resident_id", "secret"]
    summary = "What to look for: email, phone, card, iban, resident_id, secret."
  }

  argument "action" {
    type    = string
    default = "replace"
    one_of  = ["replace", "deny"]
    summary = "replace puts placeholders in the place of what is found; deny answers 400 personal_data_found."
  }

  argument "restore" {
    type    = bool
    default = true
    summary = "Keep the originals for this policy's response stage. Without it the reply shows the placeholders."
  }

  argument "allow" {
    type    = list(string)
    default = []
    summary = "Values that are no personal data, and domains (example.com) whose addresses are none."
  }

  argument "on_invalid" {
    type    = string
    default = "deny"
    one_of  = ["deny", "pass"]
    summary = "What happens to a body that can not be read: no JSON or text, or not UTF-8. deny answers 400 unreadable_body."
  }
}

hook "response" {
  needs = [request]

  sees {
    headers = ["content-encoding"]
    body    = events
  }
}
