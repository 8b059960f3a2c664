// Command greet is a plugin that greets.
package main

import (
	postern "github.com/postern-gateway/postern/sdk/go"
	"github.com/postern-gateway/postern/sdk/plugintest/testdata/greet/policy"
)

var _ = postern.Register(new(policy.Greet))

func main() {}
