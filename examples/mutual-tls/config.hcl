# Only machines with a certificate of our own CA come in, and only some of them may write.

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
    client_ca   = "keys/ca.pem"
    min_version = "1.3"
  }
}

upstream "app" {
  endpoints = ["http://127.0.0.1:9001"]
}

route "read" {
  listener = listener.public
  match    = "GET /"
  upstream = upstream.app
}

route "write" {
  listener = listener.public
  match    = "/"
  policies = [policy.writers]
  upstream = upstream.app
}
