//go:build wasip1

package postern

import (
	"unsafe"

	"github.com/postern-gateway/postern/sdk/abi"
)

// module is this module's one instance. The host calls plain functions, so there is nowhere else for it to be.
var module = NewInstance(nil, imports{})

// Register makes p the module's plugin. It stands in a variable declaration of package main, so that it has happened when
// the gateway first calls: var _ = postern.Register(&policy{}). Outside a module it does nothing: tests hand their own
// Plugin to plugintest.
func Register(p Plugin) struct{} {
	module.use(p)
	return struct{}{}
}

func (i *Instance) use(p Plugin) { i.plugin = p }

type imports struct{}

//go:wasmimport postern log
//go:noescape
func hostLog(level int32, message unsafe.Pointer, length uint32)

//go:wasmimport postern op
//go:noescape
func hostOp(code uint32, in unsafe.Pointer, inLength uint32, out unsafe.Pointer, outLength uint32) int64

func (imports) Log(level int, message string) {
	hostLog(int32(level), unsafe.Pointer(unsafe.StringData(message)), uint32(len(message)))
}

func (imports) Op(code abi.Code, in, out []byte) int64 {
	return hostOp(uint32(code), unsafe.Pointer(unsafe.SliceData(in)), uint32(len(in)),
		unsafe.Pointer(unsafe.SliceData(out)), uint32(len(out)))
}

func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

//go:wasmexport postern_abi_v1
func exportABI() int64 {
	if module.plugin == nil {
		return 0
	}
	return int64(address(module.frame)<<32 | uint64(len(module.frame)))
}

//go:wasmexport postern_grow
func exportGrow(capacity int32) int64 {
	if module.plugin == nil {
		return 0
	}
	b := module.Grow(int(capacity))
	return int64(address(b)<<32 | uint64(len(b)))
}

//go:wasmexport postern_configure
func exportConfigure(length int32) int64 {
	if module.plugin == nil {
		return int64(abi.Result(abi.ActionError, 0, 0))
	}
	action, ops := module.Configure(int(length))
	return int64(abi.Result(action, uint32(address(ops)), uint32(len(ops))))
}

//go:wasmexport postern_on
func exportOn(_, length int32) int64 {
	if module.plugin == nil {
		return int64(abi.Result(abi.ActionError, 0, 0))
	}
	action, ops := module.On(int(length))
	return int64(abi.Result(action, uint32(address(ops)), uint32(len(ops))))
}
