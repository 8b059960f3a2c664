package main

import (
	"testing"

	"github.com/postern-gateway/postern/sdk/plugintest"
)

func TestReadme(t *testing.T) {
	t.Parallel()
	plugintest.Readme(t, ".")
}
