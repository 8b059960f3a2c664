test "a login within the limit reaches the app" {
  route = route.login

  request {
    remote = "192.0.2.1"
  }

  expect {
    status = 200

    headers = {
      x-ratelimit-limit-requests = "5"
    }

    upstream {
      name = "app"
    }
  }
}
