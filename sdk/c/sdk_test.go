// Package c_test tests the C SDK: postern.h natively, the modules that build makes, and what README.md says.
package c_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/postern-gateway/postern/sdk/abi"
	"github.com/postern-gateway/postern/sdk/conformance"
	postern "github.com/postern-gateway/postern/sdk/go"
)

const getCC = "it compiles postern.h's own tests; on Debian and Ubuntu, apt-get install gcc g++"

// compile builds a program of testdata for this machine, with the sanitizers where the compiler has them.
func compile(t testing.TB, compiler, source string, flags ...string) string {
	t.Helper()
	cc := conformance.Need(t, compiler, getCC)
	out := filepath.Join(t.TempDir(), "program")
	flags = append([]string{"-Wall", "-Wextra", "-Werror", "-g", "-I", ".", "-o", out}, append(flags, source)...)
	sanitized, err := exec.CommandContext(t.Context(), cc, append([]string{"-fsanitize=address,undefined", "-fno-sanitize-recover"}, flags...)...).CombinedOutput()
	if err == nil {
		return out
	}
	t.Logf("built without sanitizers: %s", sanitized)
	if said, err := exec.CommandContext(t.Context(), cc, flags...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", compiler, err, said)
	}
	return out
}

// The header's unit tests, in the oldest C and C++ it is written for.
func TestNative(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ compiler, language, standard string }{
		{"cc", "c", "c99"}, {"c++", "c++", "c++11"},
	} {
		t.Run(c.standard, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), compile(t, c.compiler, "testdata/native.c", "-x", c.language, "-std="+c.standard, "-pedantic"))
			cmd.Env = append(os.Environ(), "ASAN_OPTIONS=detect_leaks=0") // memory is never given back, as in a module
			if said, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, said)
			}
		})
	}
}

// walker is testdata/walk.c, running.
type walker struct {
	in  io.Writer
	out *bufio.Reader
}

func newWalker(t testing.TB) *walker {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, compile(t, "cc", "testdata/walk.c"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, said.String())
		}
		cancel()
	})
	return &walker{in: in, out: bufio.NewReader(out)}
}

// walk is what the C SDK makes of a frame.
func (w *walker) walk(t testing.TB, frame []byte) (abi.Action, uint64) {
	t.Helper()
	answer := make([]byte, 9)
	_, err := w.in.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	if err == nil {
		_, err = io.ReadFull(w.out, answer)
	}
	if err != nil {
		t.Fatalf("the program has ended: %v", err)
	}
	return abi.Action(answer[0]), binary.LittleEndian.Uint64(answer[1:])
}

// reader is the same walk with the Go SDK.
type reader struct{ hash uint64 }

func (*reader) Configure(*postern.Stage) error { return nil }

func (r *reader) octet(c byte) { r.hash = (r.hash ^ uint64(c)) * 0x100000001b3 }

func (r *reader) number(n uint64) {
	for i := range 8 {
		r.octet(byte(n >> (8 * i)))
	}
}

func (r *reader) flag(set bool) { r.number(map[bool]uint64{true: 1}[set]) }

func (r *reader) octets(b []byte, present bool) {
	if !present {
		r.number(math.MaxUint64)
		return
	}
	r.number(uint64(len(b)))
	for _, c := range b {
		r.octet(c)
	}
}

func (r *reader) raw(v abi.Value) { r.octets(v.Raw(), v.Raw() != nil) }

func (r *reader) value(v abi.Value) {
	r.number(uint64(v.Kind()))
	r.flag(v.Bool())
	var whole uint64
	if v.Kind() == abi.KindInt {
		whole = uint64(v.Int())
	}
	r.number(whole)
	r.number(math.Float64bits(v.Float()))
	r.octets(v.Bytes(), v.Kind() == abi.KindString)
	r.number(uint64(v.Len()))
	r.raw(v)
	n := 0
	for key, m := range v.Each {
		r.octets(key, v.Kind() == abi.KindObject)
		r.value(m)
		if n == 1 {
			r.raw(v.Member(string(key)))
			r.raw(v.At(1))
		}
		n++
	}
	r.raw(v.At(n))
	r.raw(v.Member("k"))
}

func (r *reader) On(e *postern.Event, _ *postern.Result) error {
	r.hash = 0xcbf29ce484222325
	for _, n := range []uint64{uint64(e.Kind), uint64(e.Phase), uint64(e.Stage), uint64(e.Time()), e.Exchange()} {
		r.number(n)
	}
	var flags uint64
	for i, set := range []bool{e.End(), e.Stream(), e.Truncated(), e.Gone()} {
		if set {
			flags |= 1 << i
		}
	}
	r.number(flags)
	r.octets(e.Carry(), e.Carry() != nil)
	r.octets(e.Body())
	for slot := range 8 {
		r.flag(e.Has(slot))
		r.octets(e.Header(slot))
		for v := range e.Headers(slot) {
			r.octets(v, true)
		}
		for name, v := range e.Fields(slot) {
			r.octets(name, true)
			r.octets(v, true)
		}
		r.value(e.Value(slot))
	}
	a, found := e.Answer("k")
	body, _ := e.Body()
	all, _, _ := abi.ReadValue(body)
	r.flag(found)
	r.flag(e.Kind == abi.EventFetched && all.Kind() == abi.KindObject)
	r.octets(a.Body, found && all.Member("k").Member("body").Kind() == abi.KindString)
	r.flag(a.Cached)
	return nil
}

// frame encodes an event with its slots; nil is absent.
func frame(kind abi.Event, slots ...[]byte) []byte {
	b := make([]byte, abi.FrameHeader+abi.SlotSize*len(slots))
	binary.LittleEndian.PutUint16(b[4:], uint16(kind))
	b[6], b[7] = 4, abi.FlagEnd|abi.FlagGone
	binary.LittleEndian.PutUint32(b[12:], uint32(len(slots)))
	binary.LittleEndian.PutUint64(b[16:], 99)
	binary.LittleEndian.PutUint64(b[24:], 77)
	for i, s := range slots {
		if s != nil {
			binary.LittleEndian.PutUint32(b[abi.FrameHeader+8*i:], uint32(len(b)))
			binary.LittleEndian.PutUint32(b[abi.FrameHeader+8*i+4:], uint32(len(s)))
			b = append(b, s...)
		}
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

// Whatever octets are a frame, postern.h reads in them what the Go SDK reads, and nothing beyond them.
func FuzzFrame(f *testing.F) {
	run := func(values ...string) (b []byte) {
		for _, v := range values {
			b = append(binary.LittleEndian.AppendUint32(b, uint32(len(v))), v...)
		}
		return b
	}
	object := abi.AppendObject(nil, 3)
	object = abi.AppendInt(abi.AppendKey(object, "k"), -7)
	object = abi.AppendFloat(abi.AppendKey(object, ""), 0.25)
	object = abi.AppendList(abi.AppendKey(object, "k"), 3)
	object = abi.AppendBool(abi.AppendString(abi.AppendNull(object), "text"), true)
	answers := abi.AppendObject(abi.AppendKey(abi.AppendObject(nil, 1), "k"), 2)
	answers = abi.AppendBool(abi.AppendKey(abi.AppendString(abi.AppendKey(answers, "body"), "b"), "cached"), true)
	deep := append(bytes.Repeat(abi.AppendList(nil, 1), 32), 0)
	f.Add(frame(abi.EventRequest, []byte("c"), []byte{}, run("a", "", "b"), run("x", "1", "y"), nil, object, deep, append(deep[:5:5], deep...)))
	f.Add(frame(abi.EventFetched, nil, answers, []byte{4, 255, 255, 255, 255}, []byte{6, 1, 0, 0, 0, 255, 255, 255, 255}))
	f.Add(frame(99))
	f.Add(frame(abi.EventRequest)[:31])
	f.Add([]byte{})
	w := newWalker(f)
	r := new(reader)
	i := postern.NewInstance(r, nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4<<10 { // looking members up is quadratic
			return
		}
		if len(b) >= 12 {
			clear(b[8:12]) // of stages, only 0 is there
		}
		r.hash = 0
		want, _ := i.On(copy(i.Frame(), b))
		if action, hash := w.walk(t, b); action != want || hash != r.hash {
			t.Errorf("C reads %v, %x; Go reads %v, %x", action, hash, want, r.hash)
		}
	})
}

// build makes a module by the SDK's script, as its users do.
func build(t *testing.T, dir, out string) {
	t.Helper()
	said, err := exec.CommandContext(t.Context(), "./build", dir, out).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 69 {
		conformance.Missing(t, strings.TrimSpace(string(said)))
	}
	if err != nil || len(said) > 0 {
		t.Fatalf("build %s: %v\n%s", dir, err, said)
	}
}

// project copies one of the SDK's own plugins, in another language or with other flags.
func project(t *testing.T, name, extension, flags string) string {
	t.Helper()
	dir := t.TempDir()
	sources, err := filepath.Glob(filepath.Join(name, "*.c"))
	if err != nil || len(sources) == 0 {
		t.Fatal("no sources", err)
	}
	for _, source := range sources {
		b, err := os.ReadFile(source)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, strings.TrimSuffix(filepath.Base(source), ".c")+extension), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "cflags"), []byte(flags), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Modules built in other ways pass the conformance suite as well.
func TestVariants(t *testing.T) {
	for _, c := range []struct {
		name, extension, flags string
		wasi                   bool
	}{
		{name: "C++", extension: ".cc", flags: "-Os -std=c++11 -fno-rtti -Werror"},
		{name: "with wasi-libc", extension: ".c", flags: "-Os --target=wasm32-wasi", wasi: true},
		{name: "without bulk memory", extension: ".c", flags: "-Os -std=c99\n-mno-bulk-memory -Werror"},
		{name: "not optimized", extension: ".c", flags: "-O0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.wasi {
				needWASI(t)
			}
			dir := t.TempDir()
			guest, example := filepath.Join(dir, "guest.wasm"), filepath.Join(dir, "example.wasm")
			build(t, project(t, "conformance", c.extension, c.flags), guest)
			build(t, project(t, "example", c.extension, c.flags), example)
			conformance.Run(t, conformance.Config{Guest: guest, Example: example, Calls: 10_000})
		})
	}
}

// needWASI looks for what only plugins with a C library need.
func needWASI(t *testing.T) {
	t.Helper()
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "p.wasm")
	plugin := "#include \"postern.h\"\nstatic void c(postern_stage *s, postern_result *r) { (void)s, (void)r; }\n" +
		"static void on(const postern_event *e, postern_result *r) { (void)e, (void)r; }\nPOSTERN_PLUGIN(c, on)\n"
	write(t, filepath.Join(dir, "p.c"), plugin)
	build(t, dir, out)
	write(t, filepath.Join(dir, "cflags"), "--target=wasm32-wasi")
	write(t, filepath.Join(dir, "p.c"), "#include <string.h>\n"+plugin)
	if said, err := exec.CommandContext(t.Context(), "./build", dir, out).CombinedOutput(); err != nil {
		conformance.Missing(t, "plugins with a C library need wasi-libc: on Debian and Ubuntu, apt-get install wasi-libc libclang-rt-19-dev-wasm32\n"+string(said))
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The example is small, exports what the ABI names and nothing else, and asks for no memory that it does not use.
func TestModule(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "greet.wasm")
	build(t, "example", out)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
	defer r.Close(t.Context())
	m, err := r.CompileModule(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	var exports []string
	for name := range m.ExportedFunctions() {
		exports = append(exports, name)
	}
	slices.Sort(exports)
	if want := []string{"_initialize", "postern_abi_v1", "postern_configure", "postern_grow", "postern_on"}; !slices.Equal(exports, want) {
		t.Errorf("exports %q, want %q", exports, want)
	}
	memory := m.ExportedMemories()["memory"]
	if len(m.ExportedMemories()) != 1 || memory == nil || memory.Min() > 2 {
		t.Errorf("memories %v", m.ExportedMemories())
	}
	if n := len(m.ImportedFunctions()); n != 0 {
		t.Errorf("%d imports in a plugin that asks the host for nothing", n)
	}
	if len(b) > 32<<10 {
		t.Errorf("%d octets", len(b))
	}
}

// Without sources there is nothing to build, and build says so.
func TestBuildNothing(t *testing.T) {
	t.Parallel()
	build(t, "example", filepath.Join(t.TempDir(), "x.wasm")) // the tools are there
	cmd := exec.CommandContext(t.Context(), "./build", t.TempDir(), filepath.Join(t.TempDir(), "x.wasm"))
	said, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(said), "no *.c, *.cc or *.cpp") {
		t.Errorf("%v, said %s", err, said)
	}
}

// README.md shows the example as it is.
func TestReadme(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	readme := read("README.md")
	for language, file := range map[string]string{"c": "example/policy.c", "hcl": "example/plugin.hcl"} {
		if !strings.Contains(readme, "```"+language+"\n"+read(file)+"```") {
			t.Errorf("README.md does not show %s as it is", file)
		}
	}
}
