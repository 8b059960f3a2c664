# Run with `postern test`. Each test sends one request through the real stages; the upstream is played by `reply`.

test "a call without a key is refused" {
  route = route.chat

  request {
    body = "{\"model\": \"small\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}"
  }

  expect {
    status = 401
    stage  = "policy.tenant authenticate apikey"

    upstream {
      called = false
    }
  }
}

test "a key without the scope is refused" {
  route = route.chat

  request {
    account = "acme"
    scopes  = ["models:list"]
    body    = "{\"model\": \"small\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}"
  }

  expect {
    status = 403
    stage  = "policy.tenant require model_scope"
    body   = "models:call"

    upstream {
      called = false
    }
  }
}

test "a paid call reaches the provider under the provider's name for the model" {
  route = route.chat

  request {
    account = "acme"
    scopes  = ["models:call"]
    body    = "{\"model\": \"small\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}"

    headers = {
      content-type  = "application/json"
      authorization = "Bearer what-the-customer-sent"
    }

    reply {
      headers = { content-type = "application/json" }
      body    = "{\"object\": \"chat.completion\", \"model\": \"sandbox-small\", \"choices\": [{\"index\": 0, \"message\": {\"role\": \"assistant\", \"content\": \"Good day\"}, \"finish_reason\": \"stop\"}], \"usage\": {\"prompt_tokens\": 1000, \"completion_tokens\": 100, \"total_tokens\": 1100}}"
    }
  }

  expect {
    status = 200
    body   = "Good day"

    upstream {
      name    = "sandbox"
      body    = "\"sandbox-small\""
      without = ["authorization"]
    }
  }
}

test "a balance that does not cover the most a call can cost is not enough" {
  route = route.chat

  request {
    account = "acme"
    scopes  = ["models:call"]
    balance = "0.001"
    body    = "{\"model\": \"small\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}"
  }

  expect {
    status = 402
    stage  = "policy.tenant admit meter"
    body   = "insufficient_quota"

    upstream {
      called = false
    }
  }
}

test "a smaller limit of tokens makes the same balance enough" {
  route = route.chat

  request {
    account = "acme"
    scopes  = ["models:call"]
    balance = "0.001"
    body    = "{\"model\": \"small\", \"max_tokens\": 100, \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}"
  }

  expect {
    status = 200
  }
}

test "an unknown model is not found" {
  route = route.chat

  request {
    account = "acme"
    scopes  = ["models:call"]
    body    = "{\"model\": \"medium\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}"
  }

  expect {
    status = 404
    body   = "model_not_found"

    upstream {
      called = false
    }
  }
}
