# Every word of the language, and every one of these tests passes.

locals {
  greeting = "hello"
}

policy "request" {
  request "conformance" {
    config {
      do = request.headers["x-do"]
    }
  }
}

policy "refuses" {
  request "conformance" {
    config {
      setup = "error the%20moon%20is%20wrong"
    }
  }
}

policy "allows" {
  request "conformance" {
    on_error = allow

    config {
      do = "trap never%20mind"
    }
  }
}

# The head's script sets the attribute, so that the body's is another.
policy "bodies" {
  response "conformance" {
    config {
      do = length(attribute["conformance.saw"]) == 0 ? "event" : "splice 0 0 X"
    }
  }
}

policy "required" {
  require "post" {
    condition = request.method == "POST"
    message   = "Only POST."
  }
}

test "who is not known is refused, and the upstream is not called" {
  expect {
    status = 401
    code   = "unauthenticated"
    body   = "The caller is not known."

    upstream {
      called = false
    }
  }
}

test "who is known gets through, with body and headers both ways" {
  request {
    method  = "POST"
    host    = "API.example.com"
    path    = "/a%20b?c=d"
    remote  = "192.0.2.7"
    body    = local.greeting
    headers = { x-authenticate = "attribute identity.account acme;attribute identity.key k;attribute identity.name laptop;strings identity.scopes a b", x-request = "set x-new 1;add x-many 2;remove x-one;replace bye", x-one = "1", x-many = "1", x-response = "set x-back 1;remove server;done" }

    reply {
      status  = 201
      headers = { server = "secret", content-type = "text/plain" }
      body    = "answer"
    }
  }

  expect {
    status  = 201
    headers = { x-back = "1", content-type = "text/plain" }
    without = ["server"]
    body    = "answer"
    lacks   = "hello"

    identity {
      account = "acme"
      key     = "k"
      name    = "laptop"
      scopes  = ["a", "b"]
    }

    upstream {
      headers = { x-new = "1", x-many = "2" }
      without = ["X-One"]
      body    = "bye"
      lacks   = "hello"
    }
  }
}

test "whoever calls as an account is not asked" {
  request {
    account = "acme"
    scopes  = ["chat"]
    headers = { x-authenticate = "error asked", x-authorize = "attribute self.note seen" }
  }

  expect {
    status     = 200
    attributes = { note = "seen" }

    identity {
      account = "acme"
      scopes  = ["chat"]
    }
  }
}

test "keys, balances and holds" {
  account "acme" {
    key     = "sk-1"
    scopes  = ["chat"]
    balance = 100
  }

  exchange {
    request {
      account = "acme"
      headers = { x-admit = "key sk-1;hold acme small 4;done", x-account = "settle hold-1 3 0 -;meter calls 2;meter calls 1" }

      call {
        model = "small"
        max   = { input = 10, output = 30 }
      }

      reply {
        usage = { input = 10, output = 5 }
      }
    }

    expect {
      status   = 200
      meters   = { calls = 3, none = 0 }
      balances = { acme = 85 }
    }
  }
}

test "targets are put in order" {
  request {
    account = "acme"
    headers = { x-route = "ints targets 1 0;done" }

    call {
      model  = "small"
      stream = true

      target "a" {
        weight = 2
      }

      target "b" {
        model   = "other"
        healthy = false
      }
    }
  }

  expect {
    targets = ["b", "a"]
  }
}

test "state lasts from one exchange to the next, and the clock goes on" {
  policies = [policy.request]

  exchange {
    request {
      headers = { x-do = "count n 1 60000000000" }
    }

    expect {
      attributes = { saw = "count=1" }
    }
  }

  exchange {
    after = "59s"

    request {
      headers = { x-do = "count n 1 60000000000" }
    }

    expect {
      attributes = { saw = "count=2" }
    }
  }

  exchange {
    after = "1s"

    request {
      headers = { x-do = "count n 1 60000000000;now" }
    }

    expect {
      attributes = { saw = "count=1 now=1767323105000000000" }
    }
  }
}

test "state begins anew in each test" {
  policies = [policy.request]

  request {
    headers = { x-do = "count n 1 0" }
  }

  expect {
    attributes = { saw = "count=1" }
  }
}

test "without the grant it is denied" {
  policies = [policy.request]
  grants   = [cache]

  request {
    headers = { x-do = "count n 1 0;fetch a url=https://a.example/;await;answer a" }
  }

  expect {
    attributes = { saw = "answer.a=0,0,\"denied\",\"\"" }
    fetches    = []
  }
}

test "fetches are answered" {
  policies = [policy.request]

  fetch "auth" {
    status  = 203
    headers = { X-B = "2", x-a = "1" }
    body    = "yes"
    cached  = true
  }

  fetch "https://b.example/x?y=1" {
    error = timeout
  }

  fetch "app /path" {
    body = "from the upstream"
  }

  request {
    headers = { x-do = "fetch auth url=https://a.example;fetch b url=https://b.example/x?y=1 method=POST body=z;fetch c upstream=app path=/path;fetch d url=https://d.example/;fetch e url=bad;await;answer auth x-b;answer b;answer c;answer d;answer e" }
  }

  expect {
    attributes = { saw = "answer.auth=203,1,\"\",\"yes\",\"2\" answer.b=0,0,\"timeout\",\"\" answer.c=200,0,\"\",\"from%20the%20upstream\" answer.d=0,0,\"unreachable\",\"\" answer.e=0,0,\"invalid\",\"\"" }
    fetches    = ["auth", "b POST https://b.example/x?y=1", "c GET app /path", "d", "e"]
  }
}

test "what is logged can be expected" {
  policies = [policy.request]

  request {
    headers = { x-do = "log 1 a%20line" }
  }

  expect {
    log = ["a line", "level=INFO"]
  }
}

test "a fault can be expected, and what comes of it" {
  policies = [policy.request]

  request {
    headers = { x-do = "trap here" }
  }

  expect {
    fault  = trap
    status = 500
    code   = "policy_failed"
    log    = ["here"]
  }
}

test "a fault that is allowed is still a fault" {
  policies = [policy.allows]

  expect {
    fault  = trap
    status = 200

    upstream {}
  }
}

test "a loop runs out of fuel" {
  policies = [policy.request]

  request {
    headers = { x-do = "spin" }
  }

  expect {
    fault = fuel
  }
}

test "its own failure is another" {
  policies = [policy.request]

  request {
    headers = { x-do = "error not%20today" }
  }

  expect {
    fault = refused
    log   = ["not today"]
  }
}

test "a configuration is refused" {
  policies = [policy.refuses]
  refused  = "the moon is wrong"
}

test "require works here as in a gateway" {
  policies = [policy.required, policy.request]

  request {
    account = "acme"
  }

  expect {
    status = 403
    code   = "post"
    body   = "Only POST."
  }
}

test "a reply comes in parts" {
  policies = [policy.bodies]

  request {
    reply {
      parts = ["one", "two"]
    }
  }

  expect {
    body = "XoneXtwo"
  }
}

test "events of a stream are whole" {
  policies = [policy.bodies]

  request {
    reply {
      headers = { content-type = "text/event-stream" }
      parts   = ["data: a\n", "\ndata: b\n\n"]
    }
  }

  expect {
    body = "Xdata: a\n\nXdata: b\n\nX"
  }
}

test "a client that has gone" {
  request {
    account = "acme"
    gone    = true
    headers = { x-account = "event;meter gone 1" }
  }

  expect {
    meters     = { gone = 1 }
    attributes = { saw = "event=6,6,6,G" }
  }
}
