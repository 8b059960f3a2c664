// Command hostile breaks the ABI in every way its configuration names. It uses no SDK, so that nothing stands between it and
// the host.
package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"unsafe"

	"github.com/postern-gateway/postern/sdk/abi"
)

func main() {}

//go:wasmimport postern log
func hostLog(level int32, message unsafe.Pointer, length uint32)

//go:wasmimport postern op
func hostOp(code uint32, in unsafe.Pointer, inLength uint32, out unsafe.Pointer, outLength uint32) int64

var (
	frame = make([]byte, abi.MinFrame)
	modes []string
	kept  [][]byte
	ops   []byte
)

func at(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

//go:wasmexport postern_abi_v1
func exportABI() int64 { return int64(at(frame)<<32 | uint64(len(frame))) }

//go:wasmexport postern_configure
func configure(length int32) int64 {
	config := frame[abi.FrameHeader+2*abi.SlotSize : length]
	i := bytes.Index(config, []byte("mode"))
	v, _, _ := abi.ReadValue(config[i+4:])
	mode := v.Text()
	switch mode {
	case "refuse":
		return fail("no such colour")
	case "refuse-panic":
		panic("configure")
	case "refuse-action":
		return result(abi.ActionDone)
	case "refuse-silent":
		return int64(abi.Result(abi.ActionError, 0, 0))
	case "refuse-exit":
		os.Exit(0)
	}
	modes = append(modes, mode)
	return 0
}

func add(code abi.Op, key string, value []byte) {
	ops = append(ops, byte(code), 0, byte(len(key)), byte(len(key)>>8))
	ops = binary.LittleEndian.AppendUint32(ops, uint32(len(value)))
	ops = append(append(ops, key...), value...)
}

func result(action abi.Action) int64 {
	return int64(abi.Result(action, uint32(at(ops)), uint32(len(ops))))
}

func fail(why string) int64 {
	ops = ops[:0]
	add(abi.OpRespond, "plugin_error", append([]byte{0, 0}, why...))
	return result(abi.ActionError)
}

//go:wasmexport postern_on
func on(event, length int32) int64 {
	ops = ops[:0]
	stage := binary.LittleEndian.Uint32(frame[8:])
	add(abi.OpHeaderSet, "x-first", []byte("applied"))
	switch modes[stage] {
	case "ok":
	case "panic":
		panic("as asked")
	case "exit":
		os.Exit(0)
	case "grow":
		for {
			kept = append(kept, make([]byte, 1<<20))
		}
	case "recurse":
		ops = append(ops[:0], byte(recurse(1)))
	case "big": // within the limit, and stays
		if len(kept) == 0 {
			kept = append(kept, make([]byte, 52<<20))
		}
	case "address":
		return int64(abi.Result(abi.ActionContinue, 0xfffffff0, 100))
	case "length":
		return int64(abi.Result(abi.ActionContinue, uint32(at(ops)), 0xffffff))
	case "cut":
		return int64(abi.Result(abi.ActionContinue, uint32(at(ops)), uint32(len(ops)-1)))
	case "rest":
		ops = append(ops, 1, 0)
	case "many":
		for range 200_000 {
			add(abi.OpMeter, "m", make([]byte, 8))
		}
	case "action":
		return result(77)
	case "await":
		return result(abi.ActionAwait)
	case "opcode":
		add(99, "", nil)
	case "zero":
		ops[1] = 1
	case "again": // answers after it has changed its mind
		add(abi.OpRespond, "x", []byte{200, 0})
	case "log":
		for range 10_000 {
			hostLog(1, unsafe.Pointer(unsafe.SliceData(ops)), uint32(len(ops)))
		}
		hostLog(1, nil, 0xffffffff)
		hostLog(-9, unsafe.Pointer(uintptr(0xfffffff0)), 100)
	case "stdout":
		for range 10_000 {
			os.Stdout.WriteString("a line of text that nobody wants to read\n")
		}
		os.Stdout.Write(make([]byte, 100_000))
	case "ops": // asks the host too often; then says how often it was told so
		var refused int64
		var out [8]byte
		for range 5_000 {
			if hostOp(uint32(abi.CodeTime), nil, 0, unsafe.Pointer(&out), 8) == abi.ErrLimit {
				refused++
			}
		}
		add(abi.OpMeter, "refused", binary.LittleEndian.AppendUint64(nil, uint64(refused)))
	case "pointers": // every answer must be an error, and none a crash
		for code := uint32(0); code < 20; code++ {
			for _, p := range []uintptr{0, 4, 0xfffffff0, 0xffffffff} {
				for _, n := range []uint32{0, 1, 100, 0x7fffffff, 0xffffffff} {
					if n == 0 || p == 4 && n < 1000 {
						continue
					}
					hostOp(code, unsafe.Pointer(p), n, unsafe.Pointer(p), n)
				}
			}
		}
	case "files":
		if _, err := os.ReadDir("/"); err == nil {
			return fail("it can read the root")
		}
		if err := os.WriteFile("/tmp/x", nil, 0o600); err == nil {
			return fail("it can write")
		}
		if len(os.Environ()) > 0 || len(os.Args) > 1 {
			return fail("it has an environment")
		}
	case "reenter": // an export that is called from inside is a call like any other
		modes[stage] = "ok"
		on(event, length)
		modes[stage] = "reenter"
	}
	return result(abi.ActionContinue)
}

func recurse(n int) int {
	var room [512]byte
	room[n%512] = byte(n)
	return recurse(n+1) + int(room[(n*7)%512])
}
