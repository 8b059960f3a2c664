package main

import (
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/plugin/abi1"
	"github.com/postern-gateway/postern/gateway/provider"
	"github.com/postern-gateway/postern/gateway/provider/openai"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/badger"
	"github.com/postern-gateway/postern/gateway/state/memory"
)

// What is compiled in. A new state backend, provider format or plugin ABI is one line here.

func backends() []state.Backend { return []state.Backend{badger.Backend(), memory.Backend()} }

func formats() []provider.Format { return []provider.Format{openai.New()} }

func abis() []plugin.ABI { return []plugin.ABI{abi1.New()} }
