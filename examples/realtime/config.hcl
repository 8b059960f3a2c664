# Connections that stay open: WebSocket, and gRPC with its streams and trailers.

variable "listen" {
  default = "127.0.0.1:8443"
  summary = "Where clients connect."
}

state "badger" {
  dir = "data"
}

listener "public" {
  address   = var.listen
  protocols = [http1, http2]

  tls {
    self_signed = ["localhost", "127.0.0.1"]
  }
}

upstream "web" {
  endpoints = ["http://127.0.0.1:9001"]

  timeouts {
    idle = "10m"
  }
}

upstream "rpc" {
  endpoints = ["http://127.0.0.1:9002"]
  protocol  = http2

  timeouts {
    idle = "10m"
  }
}

route "socket" {
  listener = listener.public
  match    = "GET /socket"
  timeout  = "0s"
  upstream = upstream.web
}

route "rpc" {
  listener = listener.public
  match    = "POST /echo.Echo/"
  timeout  = "0s"
  upstream = upstream.rpc
}
