package conformance

// fetches are awaited requests and their answers.
func fetches() []play { return nil }
