abi     = 1
version = "0.1.0"
summary = "Limit requests and tokens over time."

grant "state" {
  reason = "keeps how much of its limit each key has used"
}

hook "admit" {
  sees {
    attributes = ["usage.max"]
  }

  argument "key" {
    type        = string
    per_request = true
    required    = true
    summary     = "Whose limit it is: requests with the same text share one, such as identity.account or request.remote."
  }

  argument "rate" {
    type    = string
    pattern = "[1-9][0-9]{0,8}/[smhd]|"
    default = ""
    summary = "Requests over time: \"100/s\", \"5000/m\", \"10/h\", \"1000/d\". Empty: requests are not limited."
  }

  argument "burst" {
    type    = number
    default = 0
    summary = "Requests that may come at once after a pause, 1 to 1000000000. 0: as many as the number in rate."
  }

  argument "tokens" {
    type    = string
    pattern = "[1-9][0-9]{0,8}/[smhd]|"
    default = ""
    summary = "Model tokens over time. A call is charged the most it can use and corrected by this policy's account stage."
  }

  argument "token_burst" {
    type    = number
    default = 0
    summary = "Tokens that may be used at once after a pause, 1 to 1000000000. 0: as many as the number in tokens."
  }

  argument "share" {
    type    = string
    default = ""
    summary = "Stages with the same limits and the same key share what is used. Different texts here keep them apart."
  }
}

hook "response" {
  needs = [admit]
}

hook "account" {
  needs = [admit]

  sees {
    attributes = ["response.usage"]
  }
}
