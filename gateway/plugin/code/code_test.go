package code

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/postern-gateway/postern/gateway/plugin/wasmtest"
)

// TestMain lets the test binary stand in for the process that compiles, and for some that do worse.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "compile":
			os.Exit(Work(context.Background(), os.Args[2:], os.Stdin, os.Stdout))
		case "compile elsewhere":
			status := Work(context.Background(), os.Args[2:], os.Stdin, os.Stdout)
			made, _ := filepath.Glob(filepath.Join(os.Args[2], "*"))
			if err := os.Rename(made[0], filepath.Join(os.Args[2], "wazero-v0-there")); err != nil {
				panic(err)
			}
			os.Exit(status)
		case "sleep":
			time.Sleep(time.Hour)
		case "tell":
			_, _ = os.Stdout.WriteString("it says: " + strings.Join(os.Environ(), " ") + strings.Repeat(".", 2*maxSaid))
			os.Exit(refused)
		case "crash":
			panic("for the test")
		case "nothing":
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

func compiler(t testing.TB, c Config) *Compiler {
	t.Helper()
	made, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := made.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return made
}

// module exports one function; seed makes it another module.
func module(seed int64) []byte {
	m := new(wasmtest.Module)
	m.Func("f", wasmtest.Sig().To(wasmtest.I64), wasmtest.I64Const(seed))
	return m.Bytes()
}

// run calls the module's function.
func run(t *testing.T, c *Compiler, code *Code) uint64 {
	t.Helper()
	if !c.config.Raw {
		return 0 // what metering imports is not this package's to install
	}
	m, err := c.Runtime().InstantiateModule(t.Context(), code.Module, wazero.NewModuleConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close(t.Context())
	out, err := m.ExportedFunction("f").Call(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

// files lists what is in a folder and below.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// machineCode is the one file of machine code in a folder.
func machineCode(t *testing.T, dir string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "wazero-*", "*"))
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v: %v", list, err, files(t, dir))
	}
	return list[0]
}

// TestCompilesOnce asks for the same module many times at once, and for it again when it was given back.
func TestCompilesOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Config{
		"in memory": {Raw: true}, "here, on disk": {Raw: true, Dir: t.TempDir()},
		"by a child, in a folder of its own": {Raw: true, Child: Self("compile")}, "by a child, on disk": {Raw: true, Dir: t.TempDir(), Child: Self("compile")},
		"metered": {Dir: t.TempDir(), Child: Self("compile")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made := compiler(t, c)
			wasm := module(7)
			codes := make([]*Code, 20)
			var work sync.WaitGroup
			for i := range codes {
				work.Go(func() {
					var err error
					if codes[i], err = made.Load(t.Context(), wasm); err != nil {
						t.Error(err)
					}
				})
			}
			work.Wait()
			if t.Failed() {
				return
			}
			for _, code := range codes {
				if code != codes[0] || code.Cached || code.Took <= 0 || code.Digest != Digest(wasm) {
					t.Errorf("%p is not %p, or %v", code, codes[0], code.Cached)
				}
			}
			if n := run(t, made, codes[0]); made.config.Raw && n != 7 {
				t.Errorf("%d", n)
			}
			for _, code := range codes {
				code.Release()
			}
			made.mu.Lock()
			n := len(made.codes)
			made.mu.Unlock()
			if n != 0 {
				t.Errorf("%d modules are kept that nobody holds", n)
			}
			again, err := made.Load(t.Context(), wasm)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Release()
			if again.Cached != (made.store != nil) {
				t.Errorf("cached: %v", again.Cached)
			}
			if made.store != nil {
				machineCode(t, made.store.dir)
			}
		})
	}
}

// TestFindsWhatTheChildMade starts anew on the same folder: no process is started, and the engine compiles nothing, since
// the file stays the one that it was.
func TestFindsWhatTheChildMade(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cache")
	first := compiler(t, Config{Raw: true, Dir: dir, Child: Self("compile")})
	code, err := first.Load(t.Context(), module(7))
	if err != nil {
		t.Fatal(err)
	}
	code.Release()
	path := machineCode(t, dir)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v, %v", info.Mode(), err)
	}
	second := compiler(t, Config{Raw: true, Dir: dir, Child: []string{filepath.Join(dir, "there is none")}})
	code, err = second.Load(t.Context(), module(7))
	if err != nil {
		t.Fatal(err)
	}
	defer code.Release()
	if n := run(t, second, code); n != 7 || !code.Cached {
		t.Errorf("%d, cached %v", n, code.Cached)
	}
	if after, err := os.Stat(machineCode(t, dir)); err != nil || !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("the engine has compiled again: %v", err)
	}
	if _, err := second.Load(t.Context(), module(8)); err == nil || !strings.Contains(err.Error(), "start the process that compiles plugins") {
		t.Errorf("another module without a process: %v", err)
	}
}

// TestDamagedFiles: what is kept is compiled again when it is not what was sealed. The engine itself would take gigabytes
// by a number that is wrong.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(b []byte) []byte{
		"empty":    func([]byte) []byte { return nil },
		"cut":      func(b []byte) []byte { return b[:len(b)-7] },
		"one bit":  func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"a number": func(b []byte) []byte { copy(b[13:], "\xff\xff\xff\xff"); return b },
		"longer":   func(b []byte) []byte { return append(b, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c := Config{Raw: true, Dir: dir, Child: Self("compile")}
			first := compiler(t, c)
			code, err := first.Load(t.Context(), module(7))
			if err != nil {
				t.Fatal(err)
			}
			code.Release()
			path := machineCode(t, dir)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			// Another file under the same name: the first one is mapped.
			if err := errors.Join(os.Remove(path), os.WriteFile(path, damage(bytes.Clone(b)), 0o600)); err != nil {
				t.Fatal(err)
			}
			second := compiler(t, c)
			if code, err = second.Load(t.Context(), module(7)); err != nil {
				t.Fatal(err)
			}
			defer code.Release()
			if n := run(t, second, code); n != 7 || code.Cached {
				t.Errorf("%d, cached %v", n, code.Cached)
			}
			if again, err := os.ReadFile(machineCode(t, dir)); err != nil || len(again) != len(b) {
				t.Errorf("%d octets, not %d: %v", len(again), len(b), err)
			}
		})
	}
	t.Run("the seal", func(t *testing.T) {
		t.Parallel()
		for _, text := range []string{"", "x", "../../etc/passwd 00", "/etc/passwd 00", "wazero 00\n"} {
			made := compiler(t, Config{Raw: true, Dir: t.TempDir(), Child: Self("compile")})
			if err := os.WriteFile(made.store.seal(Digest(module(7))), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			code, err := made.Load(t.Context(), module(7))
			if err != nil || code.Cached {
				t.Fatalf("%q: %v", text, err)
			}
			code.Release()
		}
	})
}

// TestAnotherEngine: what another version of the engine made is left alone and not used, and a process that has another
// version is told apart: what it makes would be compiled again here, without bounds.
func TestAnotherEngine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := Config{Raw: true, Dir: dir, Child: Self("compile")}
	first := compiler(t, c)
	code, err := first.Load(t.Context(), module(7))
	if err != nil {
		t.Fatal(err)
	}
	code.Release()
	key := Digest(module(7))
	text, err := os.ReadFile(first.store.seal(key))
	if err != nil {
		t.Fatal(err)
	}
	name, other := first.store.engine, "wazero-v0-there"
	seal := filepath.Join(dir, key+"."+other+sealed)
	if err := errors.Join(os.Rename(filepath.Join(dir, name), filepath.Join(dir, other)), os.Remove(first.store.seal(key)),
		os.WriteFile(seal, bytes.ReplaceAll(text, []byte(name), []byte(other)), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, cached := range []bool{false, true} {
		made := compiler(t, c)
		if code, err = made.Load(t.Context(), module(7)); err != nil || code.Cached != cached || run(t, made, code) != 7 {
			t.Fatalf("%v, cached: %v", err, code.Cached)
		}
		code.Release()
	}
	if list := files(t, dir); len(list) != 4 {
		t.Errorf("%v", list)
	}
	c.Child = Self("compile elsewhere")
	if _, err := compiler(t, c).Load(t.Context(), module(8)); err == nil || !strings.Contains(err.Error(), "has another engine: "+other+", not "+name) {
		t.Errorf("a process with another engine: %v", err)
	}
}

// TestBoundsOfTheChild: whatever the process does, it ends, what it says is told, and nothing is left behind.
func TestBoundsOfTheChild(t *testing.T) {
	t.Parallel()
	large := new(wasmtest.Module)
	for range 3000 {
		large.Func("", wasmtest.Sig(wasmtest.I64).To(wasmtest.I64), wasmtest.LocalGet(0)+wasmtest.Repeat(300, wasmtest.I64Const(3)+wasmtest.I64Mul+wasmtest.LocalGet(0)+wasmtest.I64Add))
	}
	wrong := new(wasmtest.Module)
	wrong.Func("f", wasmtest.Sig().To(wasmtest.I32), wasmtest.I64Const(1))
	for _, c := range []struct {
		name   string
		config Config
		wasm   []byte
		want   string
	}{
		{"time", Config{Child: Self("sleep"), Time: 300 * time.Millisecond}, module(1), "compiling takes longer than 300ms"},
		{"memory", Config{Child: Self("compile"), Memory: 80 << 20}, large.Bytes(), "compiling takes more than 80 MiB of memory"},
		{"what it says", Config{Child: Self("tell")}, module(1), "it says: GOMAXPROCS=2 GOTRACEBACK=none"},
		{"a crash", Config{Child: Self("crash")}, module(1), "exit status 2: panic: for the test"},
		{"no code", Config{Child: Self("nothing")}, module(1), "compiling left 0 files"},
		{"wrong types", Config{Child: Self("compile")}, wrong.Bytes(), "cannot use i64 as result"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.name == "memory" && running == "" {
				t.Skip("memory is bounded on Linux only")
			}
			c.config.Raw, c.config.Dir = true, t.TempDir()
			made := compiler(t, c.config)
			_, err := made.Load(t.Context(), c.wasm)
			// The race detector says in its own way that there is no more memory.
			if err == nil || !strings.Contains(err.Error(), c.want) && !(c.name == "memory" && strings.Contains(err.Error(), "failed to allocate")) || len(err.Error()) > 2*maxSaid {
				t.Errorf("%v", err)
			}
			if list := files(t, c.config.Dir); len(list) > 0 {
				t.Errorf("left behind: %v", list)
			}
			// It is tried again: what was wrong may have been the machine.
			if _, err := made.Load(t.Context(), c.wasm); err == nil {
				t.Error("no error the second time")
			}
		})
	}
}

// TestClose ends a compilation, its process and its folder.
func TestClose(t *testing.T) {
	t.Parallel()
	made, err := New(Config{Raw: true, Child: Self("sleep")})
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 2)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _, err := made.Load(ctx, module(1)); result <- err }()
	for len(files(t, made.store.dir)) == 0 {
		if list, _ := filepath.Glob(filepath.Join(made.store.dir, staged+"*")); len(list) > 0 {
			break
		}
	}
	go func() { _, err := made.Load(t.Context(), module(1)); result <- err }()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("who stops waiting gets %v", err)
	}
	closing, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	if err := made.Close(closing); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Errorf("who waits gets %v", err)
	}
	if _, err := os.Stat(made.store.dir); !missing(err) {
		t.Errorf("its folder is still there: %v", err)
	}
	if _, err := made.Load(t.Context(), module(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed one gives %v", err)
	}
	if err := made.Close(closing); err != nil {
		t.Error(err)
	}
}

// TestPrune keeps what is used, within bounds, and drops what nothing names.
func TestPrune(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	made := compiler(t, Config{Raw: true, Dir: dir})
	for i := range 3 {
		code, err := made.Load(t.Context(), module(int64(i)))
		if err != nil {
			t.Fatal(err)
		}
		code.Release()
	}
	old := time.Now().Add(-2 * time.Hour)
	list, _ := filepath.Glob(filepath.Join(dir, "wazero-*", "*"))
	stray := filepath.Join(filepath.Dir(list[0]), "stray")
	stage := filepath.Join(dir, staged+"x")
	if err := errors.Join(os.WriteFile(stray, []byte("x"), 0o600), os.Mkdir(stage, 0o700), os.Chtimes(stray, old, old), os.Chtimes(stage, old, old)); err != nil {
		t.Fatal(err)
	}
	// One entry that is larger than all may be and was used before the others, and one whose file is gone.
	seals, _ := filepath.Glob(filepath.Join(dir, "*"+sealed))
	text, err := os.ReadFile(seals[0])
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(string(text), " ")
	if err := errors.Join(os.Truncate(filepath.Join(dir, name), mostKept), os.Chtimes(seals[0], old, old)); err != nil {
		t.Fatal(err)
	}
	lost := filepath.Join(dir, "lost"+sealed)
	if err := os.WriteFile(lost, []byte("wazero/gone 00\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	compiler(t, Config{Raw: true, Dir: dir})
	for _, path := range []string{stray, stage, seals[0], filepath.Join(dir, name), lost} {
		if _, err := os.Stat(path); !missing(err) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if list := files(t, dir); len(list) != 4 {
		t.Errorf("%d files: %v", len(list), list)
	}
}

// TestFolderOfOthers: what is in the folder is run, so nobody else may write to it.
func TestFolderOfOthers(t *testing.T) {
	t.Parallel()
	if running == "" {
		t.Skip("checked on Linux only")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "others can write to it") {
		t.Errorf("%v", err)
	}
}

// TestWork holds the arguments of the process to what they must be.
func TestWork(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		arguments []string
		want      string
	}{
		{nil, "0 arguments"}, {[]string{"x", "y", "1"}, `memory "y"`}, {[]string{"x", "-1", "1"}, `memory "-1"`}, {[]string{"x", "1", "0"}, `time "0"`},
	} {
		var out bytes.Buffer
		if n := Work(t.Context(), c.arguments, strings.NewReader(""), &out); n != refused || !strings.Contains(out.String(), c.want) {
			t.Errorf("%v: %d, %s", c.arguments, n, out.String())
		}
	}
}

func TestWASI(t *testing.T) {
	t.Parallel()
	list, err := WASI(t.Context())
	if err != nil || len(list) < 40 {
		t.Fatalf("%d, %v", len(list), err)
	}
	for _, i := range list {
		if i.Name == "fd_write" && i.Type != "(i32, i32, i32, i32) -> i32" || i.Name == "proc_exit" && i.Type != "(i32) -> ()" {
			t.Errorf("%+v", i)
		}
	}
}
