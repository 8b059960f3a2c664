abi     = 1
version = "0.1.0"
summary = "Choose the order in which a model's targets are tried."

hook "route" {
  sees {
    attributes = ["targets"]
  }

  argument "order" {
    type    = string
    default = "weighted"
    one_of  = ["weighted", "written"]
    summary = "weighted draws by the targets' weights; written takes them as the model block lists them."
  }

  argument "sticky" {
    type        = string
    per_request = true
    default     = ""
    summary     = "Requests with the same text here keep the same target while it is healthy, such as identity.account. Only with order = \"weighted\"."
  }
}
