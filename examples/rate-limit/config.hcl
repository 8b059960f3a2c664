# Every client address gets so many requests; signing in is held tighter than the rest.

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

plugin "ratelimit" {
  source = "../../plugins/ratelimit"
  grants = [state]
}

upstream "app" {
  endpoints = ["http://127.0.0.1:9001"]
}

route "app" {
  listener = listener.public
  match    = "/"
  policies = [policy.fair]
  upstream = upstream.app
}

route "login" {
  listener = listener.public
  match    = "POST /login"
  policies = [policy.careful]
  upstream = upstream.app
}
