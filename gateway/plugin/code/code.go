// Package code turns the modules of plugins into machine code: its main type is Compiler. A module is checked and metered
// by admission, compiled once for its digest however many ask, in a process of its own whose time and memory are bounded,
// and kept on disk, so that the next start takes milliseconds.
package code

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/postern-gateway/postern/gateway/plugin/admission"
)

// Config is what a Compiler needs.
type Config struct {
	Log *slog.Logger // default: none

	// Dir is where machine code is kept between runs. What lies in it is run: it must be writable by the gateway alone, and
	// is created that way. Empty: in memory, or with a Child in a folder that Close removes.
	Dir string

	// Child is the command line of the process that compiles: a program and arguments that lead to Work, to which the
	// folder and the bounds are appended. Empty: this process compiles, for tests and tools. A gateway always has one, since
	// a module can be made that takes a compiler seconds and hundreds of megabytes.
	Child  []string
	Time   time.Duration // wall time of one compilation, default 60s
	Memory int64         // octets the process may take on Linux; elsewhere what its heap aims for. Default 1GiB

	Imports []admission.Import // what modules may import besides WASI

	// Charge takes fuel off the event that ctx, a guest's, is about, and does not return when it has none left. nil: what
	// WASI does costs nothing.
	Charge func(ctx context.Context, units int64)

	// Raw leaves modules unmetered: for measuring what metering costs, and nothing else.
	Raw bool
}

// Compiler owns the engine and what was compiled for it. It is safe for concurrent use.
type Compiler struct {
	config  Config
	runtime wazero.Runtime
	cache   wazero.CompilationCache
	store   *store // nil: in memory alone
	places  chan struct{}
	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	work    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	codes  map[string]*Code // by digest
}

// Code is one module, compiled. Whoever got it from Load holds a reference and gives it back with Release; the last one
// out closes it.
type Code struct {
	Digest   string                // SHA-256 of the module as it was given, in hexadecimal
	Module   wazero.CompiledModule // metered, unless Config.Raw
	Admitted *admission.Module     // what admission read; nil with Config.Raw
	Took     time.Duration         // wall time of admission and compilation
	Cached   bool                  // the machine code was on disk already

	compiler *Compiler
	refs     int // under Compiler.mu
	ready    chan struct{}
	err      error
}

// ErrClosed is returned by a Compiler that has been closed.
var ErrClosed = errors.New("the compiler is closed")

// New starts an engine, with WASI in it. Everything behind WASI is closed: there are no files, sockets, arguments or
// environment. Other host modules are the caller's to put into Runtime before the first Load.
func New(c Config) (_ *Compiler, err error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Time == 0 {
		c.Time = time.Minute
	}
	if c.Memory == 0 {
		c.Memory = 1 << 30
	}
	made := &Compiler{config: c, places: make(chan struct{}, runtime.GOMAXPROCS(0)), codes: map[string]*Code{}}
	if c.Dir == "" && len(c.Child) == 0 {
		made.cache = wazero.NewCompilationCache()
	} else {
		if made.store, err = openStore(c.Dir, c.Log); err != nil {
			return nil, err
		}
		if made.cache, err = wazero.NewCompilationCacheWithDir(made.store.dir); err != nil {
			return nil, errors.Join(fmt.Errorf("open plugin cache %s: %w", made.store.dir, err), made.store.close())
		}
	}
	made.runtime = newRuntime(made.cache)
	made.ctx, made.stop = context.WithCancel(context.Background())
	if err := installWASI(made.ctx, made.runtime, c.Charge); err != nil {
		return nil, errors.Join(fmt.Errorf("start plugin engine: %w", err), made.closeEngine(made.ctx))
	}
	return made, nil
}

// newRuntime is the engine, the same in the process that compiles and in the one that runs: what differed here would
// make code that the other does not find.
//
// Not WithCloseOnContextDone: it slows a byte scan thirteen times and stops no loop-free recursion. What bounds a guest's
// CPU is metering. Debug information costs nothing where a module has none; where it has, traps show lines of source.
func newRuntime(cache wazero.CompilationCache) wazero.Runtime {
	return wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigCompiler().
		WithCompilationCache(cache).WithDebugInfoEnabled(true).WithMemoryLimitPages(1<<16))
}

// Runtime is the engine that instances are made in. It is closed by Close.
func (c *Compiler) Runtime() wazero.Runtime { return c.runtime }

// Close ends the engine and every compilation under way; whoever waits for one gets ErrClosed. No instance may be in use.
func (c *Compiler) Close(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.stop()
	done := make(chan struct{})
	go func() { c.work.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("close the plugin engine: a module is still being compiled: %w", ctx.Err())
	}
	return c.closeEngine(ctx)
}

func (c *Compiler) closeEngine(ctx context.Context) error {
	c.stop()
	problems := errors.Join(c.runtime.Close(ctx), c.cache.Close(ctx))
	if c.store != nil {
		problems = errors.Join(problems, c.store.close())
	}
	return problems
}

// Load returns the code of a module with a reference for the caller. Each digest is compiled once, however many ask, and
// goes on being compiled when they stop waiting: the next one will want it. An error is an *admission.Refusal when the
// module may not run here; else it says why it could not be compiled.
func (c *Compiler) Load(ctx context.Context, wasm []byte) (*Code, error) {
	digest := Digest(wasm)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	code := c.codes[digest]
	if code == nil {
		code = &Code{Digest: digest, compiler: c, refs: 1, ready: make(chan struct{})} // the compilation's own reference
		c.codes[digest] = code
		c.work.Go(func() {
			code.err = c.compile(code, wasm)
			code.Release() // first: who waits may count on being the last one out
			close(code.ready)
		})
	}
	code.refs++
	c.mu.Unlock()
	select {
	case <-code.ready:
		if code.err != nil {
			code.Release()
			return nil, code.err
		}
		return code, nil
	case <-ctx.Done():
		code.Release()
		return nil, ctx.Err()
	}
}

// Digest is how a module is named: its SHA-256 in hexadecimal.
func Digest(wasm []byte) string {
	sum := sha256.Sum256(wasm)
	return hex.EncodeToString(sum[:])
}

// Release gives a reference back.
func (c *Code) Release() {
	c.compiler.mu.Lock()
	defer c.compiler.mu.Unlock()
	if c.refs--; c.refs > 0 {
		return
	}
	// A compilation that failed may have been followed by another one of the same module.
	if c.compiler.codes[c.Digest] == c {
		delete(c.compiler.codes, c.Digest)
	}
	if c.Module != nil {
		_ = c.Module.Close(context.Background()) // always nil in this engine
	}
}

// compile fills code in. It takes a place: at most as many compilations run at once as there are processors.
func (c *Compiler) compile(code *Code, wasm []byte) (err error) {
	select {
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
	case <-c.ctx.Done():
		return ErrClosed
	}
	start := time.Now()
	if code.Admitted, wasm, err = c.admit(wasm); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.config.Time)
	defer cancel()
	if c.store != nil {
		if code.Cached, err = c.prepare(ctx, wasm); err != nil {
			return err
		}
	}
	if code.Module, err = compileModule(c.runtime, wasm); err != nil {
		return err
	}
	code.Took = time.Since(start)
	c.config.Log.Debug("plugin compiled", "digest", code.Digest[:12], "took", code.Took, "cached", code.Cached)
	return nil
}

// prepare sees to it that the machine code of a metered module is on disk, whole.
func (c *Compiler) prepare(ctx context.Context, wasm []byte) (cached bool, err error) {
	key := Digest(wasm)
	if c.store.has(key) {
		return true, nil
	}
	stage, err := c.store.stage()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	if len(c.config.Child) > 0 {
		err = c.child(ctx, stage, wasm)
	} else {
		err = fill(ctx, stage, wasm)
	}
	if err != nil {
		return false, err
	}
	return false, c.store.adopt(key, stage)
}

// fill compiles a module into the engine's cache in a folder.
func fill(ctx context.Context, dir string, wasm []byte) (err error) {
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	r := newRuntime(cache)
	defer func() { err = errors.Join(err, r.Close(ctx), cache.Close(ctx)) }()
	_, err = compileModule(r, wasm)
	return err
}

// compileModule turns a panic of the compiler's into an error: the module is somebody else's, and so is the compiler.
func compileModule(r wazero.Runtime, wasm []byte) (m wazero.CompiledModule, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the compiler failed: %v", v)
		}
	}()
	return r.CompileModule(context.Background(), wasm)
}

// missing reports whether an error says that a file is not there.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
