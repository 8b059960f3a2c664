package wasmtest

import "github.com/postern-gateway/postern/sdk/abi"

// The parts of a Policy.
const (
	Log uint32 = 0 // the index of the import postern.log
	Op  uint32 = 1 // the index of the import postern.op

	Frame    = 64 << 10  // where the frame buffer is
	Capacity = 128 << 10 // octets of it
	Scratch  = 1 << 10   // an address below the frame buffer that nothing else uses, up to Frame

	// Locals of postern_on that its body may use, besides the params 0 (event) and 1 (length).
	Int  uint32 = 2 // and Int+1: i32
	Long uint32 = 4 // and Long+1: i64
)

// Policy is a module that speaks the policy ABI, version 1. It has four pages of memory and may have as much as it is given,
// imports postern.log and postern.op as functions Log and Op, and takes every configuration. The body of postern_on is on,
// which leaves a result (see Answer).
func Policy(on Code) *Module {
	m := &Module{Memories: []Limits{{Min: 4, Max: -1}}, Exports: []Export{{Name: abi.ExportMemory, Kind: MemoryKind}}}
	m.Import(abi.ImportModule, abi.ImportLog, Sig(I32, I32, I32))
	m.Import(abi.ImportModule, abi.ImportOp, Sig(I32, I32, I32, I32, I32).To(I64))
	m.Func(abi.ExportABI, Sig().To(I64), I64Const(Frame<<32|Capacity))
	m.Func(abi.ExportConfigure, Sig(I32).To(I64), Answer(abi.ActionContinue, 0, 0))
	m.Func(abi.ExportOn, Sig(I32, I32).To(I64), on, Locals{2, I32}, Locals{2, I64})
	return m
}

// Answer is the result of postern_on and postern_configure: an action and where its operations are.
func Answer(action abi.Action, address, length uint32) Code {
	return I64Const(int64(abi.Result(action, address, length)))
}

// Operation encodes an operation of a result.
func Operation(code abi.Op, key string, value []byte) []byte {
	n := len(value)
	b := []byte{byte(code), 0, byte(len(key)), byte(len(key) >> 8), byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}
	return append(append(b, key...), value...)
}

// Ask is a call of op: a code, input at an address, room for an answer at another. It leaves the i64 that op returns.
func Ask(code abi.Code, in, inLength, out, outCapacity int32) Code {
	return I32Const(int32(code)) + I32Const(in) + I32Const(inLength) + I32Const(out) + I32Const(outCapacity) + Call(Op)
}
