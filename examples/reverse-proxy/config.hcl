# Two servers behind one address. One that fails its health check gets nothing until it is well again.

variable "listen" {
  default = "127.0.0.1:8080"
  summary = "Where clients connect."
}

state "memory" {}

listener "public" {
  address   = var.listen
  protocols = [http1, http2]
}

upstream "app" {
  endpoints = ["http://127.0.0.1:9001", "http://127.0.0.1:9002"]

  health {
    path     = "/healthz"
    interval = "2s"
  }

  retry {
    on = [connect, reset, 503]
  }
}

route "app" {
  listener = listener.public
  match    = "/"
  upstream = upstream.app
}
