# The conformance guest at every phase, each with a script of its own.
policy "all" {
  authenticate "conformance" {
    config {
      do = request.headers["x-authenticate"]
    }
  }

  authorize "conformance" {
    config {
      do = request.headers["x-authorize"]
    }
  }

  admit "conformance" {
    config {
      do = request.headers["x-admit"]
    }
  }

  route "conformance" {
    config {
      do = request.headers["x-route"]
    }
  }

  request "conformance" {
    config {
      do = request.headers["x-request"]
    }
  }

  response "conformance" {
    config {
      do = request.headers["x-response"]
    }
  }

  account "conformance" {
    config {
      do = request.headers["x-account"]
    }
  }
}
