# More is asked than the server behind can do. It gets what it can, the payments first, and the others are told when to come back.

variable "listen" {
  default = "127.0.0.1:8080"
  summary = "Where clients connect."
}

gateway {
  overload {
    memory {
      limit = "256MiB"
    }

    client {
      send  = "1KiB"
      grace = "5s"
    }
  }
}

state "memory" {}

listener "public" {
  address   = var.listen
  protocols = [http1, http2]
}

upstream "app" {
  endpoints = ["http://127.0.0.1:9001"]

  overload {
    min       = 4
    initial   = 32
    tolerance = 2
    queue     = 16
    wait      = "100ms"
  }
}

route "app" {
  listener = listener.public
  match    = "/"
  upstream = upstream.app
}

route "payments" {
  listener = listener.public
  match    = "POST /payments"
  upstream = upstream.app
  priority = critical
}

route "reports" {
  listener = listener.public
  match    = "/reports/{path...}"
  upstream = upstream.app
  priority = bulk
}
