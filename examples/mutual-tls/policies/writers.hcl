policy "writers" {
  summary = "The certificate's common name says who may change things."

  require "writer" {
    condition = contains(["robot"], request.tls.peer)
    message   = "This certificate may only read."
  }
}
