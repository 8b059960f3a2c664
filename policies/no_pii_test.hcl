test "an e-mail address does not reach the provider" {
  route = route.chat

  request {
    account = "acme"
    scopes  = ["models:call"]
    body    = "{\"model\": \"small\", \"messages\": [{\"role\": \"user\", \"content\": \"I am jane@example.com\"}]}"
  }

  expect {
    status = 200

    upstream {
      body  = "I am "
      lacks = "jane@example.com"
    }
  }
}

test "a card number does not reach the provider, other numbers do" {
  route = route.chat

  request {
    account = "acme"
    scopes  = ["models:call"]
    body    = "{\"model\": \"small\", \"messages\": [{\"role\": \"user\", \"content\": \"Charge 4111 1111 1111 1111 for order 4711\"}]}"
  }

  expect {
    status = 200

    upstream {
      body  = "for order 4711"
      lacks = "1111 1111"
    }
  }
}

test "embeddings are redacted too" {
  route = route.embeddings

  request {
    account = "acme"
    scopes  = ["models:call"]
    body    = "{\"model\": \"embedding\", \"input\": \"Write to jane@example.com\"}"
  }

  expect {
    status = 200

    upstream {
      body  = "Write to "
      lacks = "jane@example.com"
    }
  }
}
