# Whoever calls is known to a service of your own: the gateway asks it, and remembers for five seconds what it said.

variable "listen" {
  default = "127.0.0.1:8080"
  summary = "Where clients connect."
}

state "badger" {
  dir = "data"
}

listener "public" {
  address   = var.listen
  protocols = [http1, http2]
}

plugin "authz" {
  source = "authz"
  grants = [fetch]

  fetch {
    origins = ["http://127.0.0.1:9002"]
    timeout = "1s"
  }
}

upstream "app" {
  endpoints = ["http://127.0.0.1:9001"]
}

route "app" {
  listener = listener.public
  match    = "/"
  policies = [policy.members]
  upstream = upstream.app
}
