# What only a whole gateway shows: stages one after the other, what is carried between them, body modes, answers, faults.
# conformance.Run plays these tests over every guest; postern plugin test does it for a guest beside policy.hcl and plugin.hcl.

# Admit and route stream the request's body, and response the reply's: a second event, for its end.
test "every phase is asked" {
  request {
    headers = {
      x-do-authenticate = "attribute identity.account acme; meter events 1; carry a"
      x-do-authorize    = "meter events 10; see carry; carry ab"
      x-do-admit        = "meter events 100; carry abc"
      x-do-route        = "meter events 1000; carry abcd"
      x-do-request      = "meter events 10000; see carry; set x-upstream 1; carry $carry"
      x-do-response     = "meter events 100000; carry sent"
      x-do-account      = "meter events 1000000; see carry; event"
    }

    reply {
      body = "hello"
    }
  }

  expect {
    status     = 200
    attributes = { saw = "see.carry=\"sent\" event=6,6,6," }
    meters     = { events = 1212211 }

    upstream {
      headers = { x-upstream = "1" }
    }
  }
}

test "what is carried reaches the later phases" {
  request {
    account = "acme"
    headers = {
      x-do-authorize = "carry kept%20octets"
      x-do-account   = "see carry"
    }
  }

  expect {
    attributes = { saw = "see.carry=\"kept%20octets\"" }
  }
}

test "a request's body comes whole where it is buffered" {
  request {
    account = "acme"
    method = "POST"
    body   = "hello"
    headers = {
      x-do-request = "see body; splice 0 0 %3E; splice 5 0 !; event"
    }
  }

  expect {
    attributes = { saw = "see.body=\"hello\" event=1,4,4,E" }

    upstream {
      body = ">hello!"
    }
  }
}

test "no body is an empty body where it is buffered" {
  request {
    account = "acme"
    headers = {
      x-do-request = "see body; event"
    }
  }

  expect {
    attributes = { saw = "see.body=\"\" event=1,4,4,E" }
  }
}

test "a request's body passes a stage that streams" {
  request {
    account = "acme"
    method = "POST"
    body   = "hello"
    headers = {
      # The request itself has no body yet; its pieces do.
      x-do-admit = "has body; attribute self.admit drop%3B%20event"
    }
  }

  expect {
    upstream {
      lacks = "hello"
    }
  }
}

test "a response's events come whole" {
  request {
    account = "acme"
    headers = {
      x-do-response = "attribute self.response log%201%20$body%3B%20meter%20pieces%201"
    }

    reply {
      headers = { content-type = "text/event-stream" }
      parts   = ["data: 1\n", "\ndata: 2\n\nda", "ta: 3\n", "\n"]
    }
  }

  expect {
    body = "data: 1\n\ndata: 2\n\ndata: 3\n\n"
    log  = ["message=\"data: 1..\"", "message=\"data: 2..\"", "message=\"data: 3..\""]
  }
}

test "a response's body is changed as it passes" {
  request {
    account = "acme"
    headers = {
      x-do-response = "attribute self.response splice%200%200%20%5B%3B%20event"
    }

    reply {
      body = "hello"
    }
  }

  expect {
    body       = "[hello"
    attributes = { saw = "event=4,5,5,E" }
  }
}

test "an answer of the plugin's own keeps the request from the upstream" {
  request {
    account = "acme"
    headers = {
      x-do-authorize = "respond 403 not_you Not%20you.; set x-why because"
      x-do-request   = "trap never"
      x-do-account   = "meter accounted 1; event"
    }
  }

  expect {
    status  = 403
    code    = "not_you"
    headers = { x-why = "because" }
    meters  = { accounted = 1 }

    upstream {
      called = false
    }
  }
}

test "a response is replaced" {
  request {
    account = "acme"
    headers = {
      x-do-response = "respond 502 bad_answer @0"
    }

    reply {
      body = "secret"
    }
  }

  expect {
    status = 502
    code   = "bad_answer"
    lacks  = "secret"
  }
}

test "a plugin that is done is not asked again" {
  request {
    account = "acme"
    headers = {
      x-do-response = "done; meter pieces 1"
    }

    reply {
      body = "hello"
    }
  }

  expect {
    body   = "hello"
    meters = { pieces = 1 }
  }
}

test "a trap denies the request" {
  request {
    account = "acme"
    headers = {
      x-do-request = "set x-lost 1; trap at%20once"
      x-do-account = "meter accounted 1"
    }
  }

  expect {
    fault  = trap
    log    = ["at once"]
    meters = { accounted = 1 }

    upstream {
      called = false
    }
  }
}

test "an endless loop is stopped" {
  request {
    account = "acme"
    headers = {
      x-do-admit = "spin"
    }
  }

  expect {
    fault = fuel

    upstream {
      called = false
    }
  }
}

test "the account stage is asked when the client has gone" {
  request {
    account = "acme"
    gone = true
    headers = {
      x-do-account = "event"
    }
  }

  expect {
    attributes = { saw = "event=6,6,6,G" }
  }
}

test "who calls is found by a key, and pays" {
  account "acme" {
    key     = "k-1"
    scopes  = ["chat"]
    balance = 100
  }

  request {
    headers = {
      x-do-authenticate = "key k-1; attribute identity.account acme; strings identity.scopes chat"
      x-do-request      = "hold acme fast 4"
      x-do-account      = "settle hold-1 3 0 -"
    }

    call {
      model = "fast"
      max   = { input = 10, output = 20 }

      target "near" {}
    }

    reply {
      usage = { input = 10, output = 5 }
    }
  }

  expect {
    attributes = { saw = "settle=\"15.00\",\"85.00\"" }
    balances   = { acme = 85 }

    identity {
      account = "acme"
      scopes  = ["chat"]
    }
  }
}

test "a service is asked, and its word counts" {
  fetch "https://auth.example.com/check" {
    status = 403
    body   = "no"
  }

  request {

    account = "acme"
    headers = {
      x-do-authorize = "fetch check url=https://auth.example.com/check; await; answer check; respond 403 refused @0"
    }
  }

  expect {
    status     = 403
    code       = "refused"
    fetches    = ["check GET https://auth.example.com/check"]
    attributes = { saw = "answer.check=403,0,\"\",\"no\"" }

    upstream {
      called = false
    }
  }
}

test "state lasts from one request to the next" {
  exchange {
    request {
      account = "acme"
      headers = {
        x-do-request = "count seen 1 60000000000"
      }
    }

    expect {
      attributes = { saw = "count=1" }
    }
  }

  exchange {
    after = "59s"

    request {

      account = "acme"
      headers = {
        x-do-request = "count seen 1 60000000000"
      }
    }

    expect {
      attributes = { saw = "count=2" }
    }
  }

  exchange {
    after = "1s"

    request {

      account = "acme"
      headers = {
        x-do-request = "count seen 1 60000000000"
      }
    }

    expect {
      attributes = { saw = "count=1" }
    }
  }
}
