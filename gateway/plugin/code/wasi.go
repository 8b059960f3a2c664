package code

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// How much fuel a guest is charged for what WASI does at its word: metering counts the call alone.
const (
	vectorCost = 512 // for a vector, or a subscription, of a list
	octetCost  = 1   // for a random octet
)

// lists are WASI's functions that go through a list of the guest's, and which parameter says how long it is.
var lists = map[string]int{"fd_read": 2, "fd_pread": 2, "fd_write": 2, "fd_pwrite": 2, "poll_oneoff": 2, "sock_recv": 2, "sock_send": 2}

// badFile is WASI's error for a file that is not open.
const badFile = 8

// installWASI defines WASI. charge takes fuel for a list before it is gone through; nil: nothing does.
//
// There are no files, so what is about paths has one answer. The engine's own functions copy a path of any length before they
// find that out.
func installWASI(ctx context.Context, r wazero.Runtime, charge func(ctx context.Context, units int64)) error {
	b := r.NewHostModuleBuilder(wasi_snapshot_preview1.ModuleName)
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(b)
	compiled, err := b.Compile(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = compiled.Close(ctx) }() // always nil in this engine
	for name, def := range compiled.ExportedFunctions() {
		replace := func(call api.GoModuleFunc) {
			b.NewFunctionBuilder().WithGoModuleFunction(call, def.ParamTypes(), def.ResultTypes()).Export(name)
		}
		length, list := lists[name]
		switch {
		case strings.HasPrefix(name, "path_"):
			replace(func(_ context.Context, _ api.Module, stack []uint64) { stack[0] = badFile })
		case list && charge != nil:
			call, ok := def.GoFunction().(api.GoModuleFunction)
			if !ok {
				return fmt.Errorf("WASI's %s is of another kind", name)
			}
			replace(func(ctx context.Context, m api.Module, stack []uint64) {
				charge(ctx, vectorCost*int64(uint32(stack[length])))
				call.Call(ctx, m, stack)
			})
		}
	}
	_, err = b.Instantiate(ctx)
	return err
}

// Charged is r whose octets cost fuel, taken before they are read.
func Charged(r io.Reader, charge func(units int64)) io.Reader { return &charged{r, charge} }

type charged struct {
	from   io.Reader
	charge func(units int64)
}

// Read charges for all that is wanted.
func (c *charged) Read(b []byte) (int, error) {
	c.charge(octetCost * int64(len(b)))
	return c.from.Read(b)
}
