# The conformance guest at every phase, as a gateway uses it. A phase's script comes in a header of its own. Where bodies come in
# pieces, it can set what the script is from the next event on, in an attribute of its own.
policy "conformance" {
  authenticate "conformance" {
    config {
      do = request.headers["x-do-authenticate"]
    }
  }

  authorize "conformance" {
    config {
      do = request.headers["x-do-authorize"]
    }
  }

  admit "conformance" {
    config {
      do = attribute["conformance.admit"] == "" ? request.headers["x-do-admit"] : attribute["conformance.admit"]
    }
  }

  route "conformance" {
    config {
      do = attribute["conformance.route"] == "" ? request.headers["x-do-route"] : attribute["conformance.route"]
    }
  }

  request "conformance" {
    config {
      do = request.headers["x-do-request"]
    }
  }

  response "conformance" {
    config {
      do = attribute["conformance.response"] == "" ? request.headers["x-do-response"] : attribute["conformance.response"]
    }
  }

  account "conformance" {
    config {
      do = request.headers["x-do-account"]
    }
  }
}
