package admission_test

import (
	"context"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/plugin/admission"
	w "github.com/postern-gateway/postern/gateway/plugin/wasmtest"
)

// BenchmarkMetering runs guests as they are and metered in turns, so that what else the machine does falls on both, and
// reports the shortest time of each and what metering adds to it. "small" is a policy call; the others scan 64 KiB.
func BenchmarkMetering(b *testing.B) {
	b.Run("c", func(b *testing.B) {
		wasm := compileC(b, "scan.c", "-O2")
		for _, name := range scans {
			b.Run(name, func(b *testing.B) { compareCosts(b, wasm, name) })
		}
	})
	// By hand, so that it always runs.
	m := &w.Module{Memories: []w.Limits{{Min: 2, Max: 2}}}
	m.Func("buffer", w.Sig().To(w.I32), w.I32Const(0))
	m.Func("scan", w.Sig(w.I32).To(w.I32), w.Loop(w.Void,
		w.LocalGet(1), w.LocalGet(2), w.I32Load8U(0), w.I32Const('e'), w.I32Eq, w.I32Add, w.LocalSet(1),
		w.LocalGet(2), w.I32Const(1), w.I32Add, w.LocalTee(2), w.LocalGet(0), w.I32LtU, w.BrIf(0))+w.LocalGet(1), w.Locals{Count: 2, Type: w.I32})
	b.Run("hand/scan", func(b *testing.B) { compareCosts(b, m.Bytes(), "scan") })
}

func compareCosts(b *testing.B, wasm []byte, name string) {
	var run [2]func()
	for i, code := range [][]byte{wasm, meter(b, wasm, admission.Limits{})} {
		h, m := scanner(b, code)
		h.budget = 1 << 62
		f := m.ExportedFunction(name)
		stack := make([]uint64, 2)
		run[i] = func() {
			stack[0], stack[1] = 65536, 'e'
			if err := f.CallWithStack(context.Background(), stack); err != nil {
				b.Fatal(err)
			}
		}
	}
	batch := 1
	if name == "small" {
		batch = 1000
	}
	least := [2]time.Duration{1 << 62, 1 << 62}
	b.ReportAllocs()
	for b.Loop() {
		for i := range run {
			began := time.Now()
			for range batch {
				run[i]()
			}
			least[i] = min(least[i], time.Since(began))
		}
	}
	plain, metered := float64(least[0])/float64(batch), float64(least[1])/float64(batch)
	b.ReportMetric(plain, "plain-ns")
	b.ReportMetric(metered, "metered-ns")
	b.ReportMetric(metered-plain, "added-ns")
	b.ReportMetric(100*(metered/plain-1), "added-%")
}

// BenchmarkAdmission reads and meters a module of the Go toolchain's shape and size, and says what that is to compiling it.
func BenchmarkAdmission(b *testing.B) {
	m := new(w.Module)
	for range 2000 {
		arms := w.LocalGet(0) + w.BrTable(0, 1, 2, 3, 4, 5, 6, 7)
		for range 8 {
			arms = w.Block(w.Void, arms) + w.Repeat(12, w.LocalGet(0)+w.I32Const(1)+w.I32Add+w.LocalSet(0))
		}
		m.Func("", w.Sig(w.I32), w.Loop(w.Void, arms, w.LocalGet(0), w.BrIf(0)))
	}
	wasm := m.Bytes()
	b.SetBytes(int64(len(wasm)))
	b.ReportAllocs()
	for b.Loop() {
		read, err := admission.Read(wasm, admission.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := read.Meter(); err != nil {
			b.Fatal(err)
		}
	}
}
