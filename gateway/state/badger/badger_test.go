package badger

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/statetest"
)

// quiet is a log for tests that do not look at it.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func must(t *testing.T, c Config) *Store {
	t.Helper()
	if c.Log == nil {
		c.Log = quiet()
	}
	if c.Ballast == 0 {
		c.Ballast = 1 << 10
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(s state.Store, key, value string) error {
	var b state.Batch
	b.Put([]byte(key), []byte(value))
	return s.Commit(context.Background(), &b)
}

func TestStore(t *testing.T) {
	t.Parallel()
	statetest.Run(t, statetest.Config{
		Durable: true,
		Open:    func(t *testing.T, dir string) state.Store { return must(t, Config{Dir: dir}) },
	})
}

func TestEncryptedStore(t *testing.T) {
	t.Parallel()
	dir, key := t.TempDir(), bytes.Repeat([]byte{7}, 32)
	s := must(t, Config{Dir: dir, EncryptionKey: key})
	if err := put(s, "canary-key", "canary-value"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if octets, _ := os.ReadFile(path); bytes.Contains(octets, []byte("canary")) {
				t.Errorf("%s holds plain text", path)
			}
		}
		return err
	})
	if _, err := Open(t.Context(), Config{Dir: dir, EncryptionKey: bytes.Repeat([]byte{8}, 32), Log: quiet()}); err == nil {
		t.Error("another key opened it")
	}
	if _, err := Open(t.Context(), Config{Dir: dir, Log: quiet()}); err == nil {
		t.Error("no key opened it")
	}
	s = must(t, Config{Dir: dir, EncryptionKey: key})
	if v, err := s.Get(t.Context(), []byte("canary-key")); string(v) != "canary-value" {
		t.Errorf("with the key: %q, %v", v, err)
	}
}

func TestLocked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := must(t, Config{Dir: dir})
	if _, err := Open(t.Context(), Config{Dir: dir, Log: quiet()}); !errors.Is(err, state.ErrLocked) {
		t.Errorf("open twice: %v, want ErrLocked", err)
	}
	if err := put(s, "a", "1"); err != nil {
		t.Errorf("the first suffers: %v", err)
	}
	s.Close()
	must(t, Config{Dir: dir})
}

func TestLowWater(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var free atomic.Uint64
	free.Store(1 << 40)
	c := Config{Dir: dir, Ballast: 4096, free: func(string) (uint64, bool) { return free.Load(), true }}
	s := must(t, c)
	ballast := filepath.Join(dir, "ballast")
	if info, err := os.Stat(ballast); err != nil || info.Size() != 4096 {
		t.Fatalf("ballast: %v, %v", info, err)
	}
	if err := put(s, "a", "1"); err != nil {
		t.Fatal(err)
	}
	free.Store(DefaultReserve - 1)
	if err := put(s, "b", "1"); !errors.Is(err, state.ErrFull) {
		t.Errorf("at low water: %v, want ErrFull", err)
	}
	if v, err := s.Get(t.Context(), []byte("a")); string(v) != "1" {
		t.Errorf("reading at low water: %v", err)
	}
	if err := s.tendBallast(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ballast); err != nil {
		t.Errorf("the ballast went too soon: %v", err)
	}
	free.Store(DefaultReserve/2 - 1)
	if err := s.tendBallast(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ballast); err == nil {
		t.Error("the ballast stayed on a disk that is nearly full")
	}
	s.Close()

	s = must(t, c) // a full disk does not keep it from opening
	if err := put(s, "b", "1"); !errors.Is(err, state.ErrFull) {
		t.Errorf("opened on a full disk: %v, want ErrFull", err)
	}
	free.Store(1 << 40)
	if err := put(s, "b", "1"); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if err := s.tendBallast(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ballast); err != nil {
		t.Errorf("with room again there is no ballast: %v", err)
	}
}

// A value log that can not be synced is only logged by Badger; here it ends acknowledging.
func TestLoggedFault(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := must(t, Config{Dir: t.TempDir()})
	l := &logger{log: slog.New(slog.NewTextHandler(&out, nil)), fail: s.fail}
	l.Errorf("unable to get stats\n")
	if err := put(s, "a", "1"); err != nil {
		t.Fatalf("after a harmless error: %v", err)
	}
	l.Errorf("Error while curlf sync: %v\n", "input/output error")
	if err := put(s, "b", "1"); err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("after a lost sync: %v", err)
	}
	if !strings.Contains(out.String(), "input/output error") {
		t.Error("and the log does not say so")
	}
}

func TestInterruptedRestore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := must(t, Config{Dir: dir})
	s.Close()
	if err := state.WriteFile(s.restoring(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Dir: dir, Log: quiet()}); err == nil || !strings.Contains(err.Error(), "restore") {
		t.Errorf("opened half a restore: %v", err)
	}
}

func TestBackend(t *testing.T) {
	t.Parallel()
	key := strings.Repeat("ab", 32)
	object := func(m map[string]cty.Value) cty.Value {
		for _, name := range []string{"dir", "reserve", "encryption_key"} {
			if _, ok := m[name]; !ok {
				m[name] = cty.NullVal(cty.String)
			}
		}
		if _, ok := m["sync"]; !ok {
			m["sync"] = cty.NullVal(cty.Bool)
		}
		return cty.ObjectVal(m)
	}
	tests := []struct {
		name      string
		arguments map[string]cty.Value
		want      Config
		err       string
	}{
		{"relative", map[string]cty.Value{"dir": cty.StringVal("data")}, Config{Dir: "/etc/postern/data"}, ""},
		{"absolute", map[string]cty.Value{"dir": cty.StringVal("/var/x"), "sync": cty.True}, Config{Dir: "/var/x"}, ""},
		{"no sync", map[string]cty.Value{"dir": cty.StringVal("/x"), "sync": cty.False}, Config{Dir: "/x", NoSync: true}, ""},
		{"reserve", map[string]cty.Value{"dir": cty.StringVal("/x"), "reserve": cty.StringVal("1GiB")}, Config{Dir: "/x", Reserve: 1 << 30}, ""},
		{"key", map[string]cty.Value{"dir": cty.StringVal("/x"), "encryption_key": cty.StringVal(key).Mark("secret")},
			Config{Dir: "/x", EncryptionKey: bytes.Repeat([]byte{0xab}, 32)}, ""},
		{"no dir", map[string]cty.Value{}, Config{}, "dir is required"},
		{"bad reserve", map[string]cty.Value{"dir": cty.StringVal("/x"), "reserve": cty.StringVal("lots")}, Config{}, "not a size"},
		{"bad key", map[string]cty.Value{"dir": cty.StringVal("/x"), "encryption_key": cty.StringVal("hunter2")}, Config{}, "encryption_key"},
	}
	for _, test := range tests {
		v, _ := object(test.arguments).UnmarkDeep()
		got, err := decode("/etc/postern", v)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v, want %q", test.name, err, test.err)
			}
			continue
		}
		if err != nil || got.Dir != test.want.Dir || got.NoSync != test.want.NoSync || got.Reserve != test.want.Reserve ||
			!bytes.Equal(got.EncryptionKey, test.want.EncryptionKey) {
			t.Errorf("%s: %+v, %v", test.name, got, err)
		}
	}
	s, err := Backend().Open(t.Context(), t.TempDir(), object(map[string]cty.Value{"dir": cty.StringVal("d").Mark("x")}), quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := put(s, "a", "1"); err != nil {
		t.Error(err)
	}
}

func BenchmarkCommit(b *testing.B) {
	s, err := Open(b.Context(), Config{Dir: b.TempDir(), Log: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	for range b.N {
		if err := put(s, "key", "value"); err != nil {
			b.Fatal(err)
		}
	}
}
