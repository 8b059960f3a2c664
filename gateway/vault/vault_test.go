package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/state/badger"
)

func open(t testing.TB, c Config) *Vault {
	t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	v, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return v
}

func seal(t testing.TB, d Drawer, owner, name, plain string) []byte {
	t.Helper()
	sealed, err := d.Seal(t.Context(), owner, name, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func opens(t testing.TB, d Drawer, owner, name string, sealed []byte, want string) {
	t.Helper()
	if plain, err := d.Open(t.Context(), owner, name, sealed); err != nil || string(plain) != want {
		t.Errorf("%s %s: %q, %v", owner, name, plain, err)
	}
}

func refused(t testing.TB, d Drawer, owner, name string, sealed []byte, want error) {
	t.Helper()
	if plain, err := d.Open(t.Context(), owner, name, sealed); !errors.Is(err, want) || plain != nil {
		t.Errorf("%s %s: %q, %v, want %v", owner, name, plain, err, want)
	}
}

// What is sealed can be opened for the same owner, purpose and record, and for no other.
func TestSeal(t *testing.T) {
	t.Parallel()
	v := open(t, Config{})
	d := v.Drawer("person")
	sealed := seal(t, d, "pers_a", "email", "jane@example.com")
	if bytes.Contains(sealed, []byte("jane")) || len(sealed) != Overhead+len("jane@example.com") {
		t.Errorf("%q", sealed)
	}
	opens(t, d, "pers_a", "email", sealed, "jane@example.com")
	opens(t, d, "pers_a", "none", seal(t, d, "pers_a", "none", ""), "")
	seal(t, d, "pers_b", "email", "x")
	refused(t, d, "pers_a", "name", sealed, ErrDamaged)
	refused(t, d, "pers_b", "email", sealed, ErrDamaged)
	refused(t, v.Drawer("replay"), "pers_a", "email", sealed, ErrDamaged)
	refused(t, v.Drawer("perso"), "pers_a", "nemail", sealed, ErrDamaged)
	refused(t, d, "pers_never", "email", sealed, ErrShredded)
	for i := range sealed {
		b := bytes.Clone(sealed)
		b[i] ^= 1
		refused(t, d, "pers_a", "email", b, ErrDamaged)
		refused(t, d, "pers_a", "email", sealed[:i], ErrDamaged)
	}
	for _, bad := range []string{"", strings.Repeat("o", MaxName+1)} {
		if _, err := d.Seal(t.Context(), bad, "", nil); !errors.Is(err, ErrOwner) {
			t.Errorf("owner %q: %v", bad, err)
		}
		if _, err := v.Drawer(bad).Seal(t.Context(), "pers_a", "", nil); !errors.Is(err, ErrOwner) {
			t.Errorf("purpose %q: %v", bad, err)
		}
		if err := v.Shred(t.Context(), bad); !errors.Is(err, ErrOwner) {
			t.Errorf("shred %q: %v", bad, err)
		}
	}
}

func TestMAC(t *testing.T) {
	t.Parallel()
	v := open(t, Config{})
	mac := func(purpose, owner, text string) [32]byte {
		sum, err := v.Drawer(purpose).MAC(t.Context(), owner, text)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	seen := map[[32]byte]string{}
	for _, is := range [][3]string{{"p", "a", "t"}, {"p", "b", "t"}, {"q", "a", "t"}, {"p", "a", "u"}, {"p", "at", ""}, {"pa", "t", ""}} {
		sum := mac(is[0], is[1], is[2])
		if other, twice := seen[sum]; twice || sum != mac(is[0], is[1], is[2]) {
			t.Errorf("%v is %s", is, other)
		}
		seen[sum] = fmt.Sprint(is)
	}
}

func TestShred(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	v := open(t, Config{Dir: dir})
	d := v.Drawer("person")
	ctx := t.Context()
	one, two := seal(t, d, "one", "r", "1"), seal(t, d, "two", "r", "2")
	for range 2 {
		if err := v.Shred(ctx, "one"); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Shred(ctx, "never"); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		refused(t, d, "one", "r", one, ErrShredded)
		opens(t, d, "two", "r", two, "2")
		for owner, want := range map[string]bool{"one": true, "two": false, "never": true, "new": false} {
			if is, err := v.Shredded(ctx, owner); is != want || err != nil {
				t.Errorf("%s is shredded: %t, %v", owner, is, err)
			}
			if _, err := d.Seal(ctx, owner, "r", nil); want != errors.Is(err, ErrShredded) && owner != "new" {
				t.Errorf("seal for %s: %v", owner, err)
			}
			if _, err := d.MAC(ctx, owner, "r"); want != errors.Is(err, ErrShredded) && owner != "new" {
				t.Errorf("MAC for %s: %v", owner, err)
			}
		}
	}
	if n := v.Owners(); n != 1 {
		t.Errorf("%d owners", n)
	}
	check()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Seal(ctx, "two", "r", nil); !errors.Is(err, ErrClosed) || !errors.Is(v.Close(), ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	v = open(t, Config{Dir: dir})
	d = v.Drawer("person")
	check()
}

// grep fails the test for every file below dir, and every text given, that holds any of the secrets.
func grep(t *testing.T, dir string, texts map[string][]byte, secrets map[string][]byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		texts[path] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range texts {
		for name, secret := range secrets {
			if bytes.Contains(text, secret) {
				t.Errorf("%s holds %s", where, name)
			}
		}
	}
}

// After Shred the key is in no file of the vault or the store and in no backup; what the store's old files and an earlier
// backup of it still hold can not be opened by anybody who has all that is there.
func TestShredLeavesNothing(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir := t.TempDir()
	store, err := badger.Open(ctx, badger.Config{Dir: filepath.Join(dir, "data"), Ballast: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	v := open(t, Config{Dir: filepath.Join(dir, "vault")})
	const canary = "canary-4711-jane@example.com"
	d := v.Drawer("person")
	keep := func(owner string) []byte {
		sealed := seal(t, d, owner, "r", canary)
		b := new(state.Batch)
		b.Put([]byte("r/"+owner), sealed)
		if err := store.Commit(ctx, b); err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	sealed, other := keep("gone"), keep("stays")
	e := v.index[v.tagOf("gone")]
	var s slot
	if _, err := v.file.ReadAt(s[:], place(e.slot)); err != nil {
		t.Fatal(err)
	}
	raw := bytes.Clone(s.unwrap(v.id, v.master, v.tagOf("gone")))
	secrets := map[string][]byte{"the wrapped key": bytes.Clone(s[56:104]), "its nonce": bytes.Clone(s[32:56]), "the key": raw, "the canary": []byte(canary)}
	if kept, err := os.ReadFile(filepath.Join(dir, "vault", keysFile)); err != nil || !bytes.Contains(kept, secrets["the wrapped key"]) {
		t.Fatal("this test looks for the wrong thing", err)
	}
	var before bytes.Buffer
	if err := v.Export(ctx, &before); err != nil || !bytes.Contains(before.Bytes(), secrets["the wrapped key"]) {
		t.Fatal("this test looks for the wrong thing", err)
	}
	if err := v.Shred(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	var data, keys bytes.Buffer
	if err := store.Backup(ctx, &data); err != nil {
		t.Fatal(err)
	}
	if err := v.Export(ctx, &keys); err != nil {
		t.Fatal(err)
	}
	grep(t, dir, map[string][]byte{"the store's backup": data.Bytes(), "the vault's backup": keys.Bytes()}, secrets)
	if err := errors.Join(v.Close(), store.Close()); err != nil {
		t.Fatal(err)
	}
	grep(t, dir, map[string][]byte{}, secrets)
	v = open(t, Config{Dir: filepath.Join(dir, "vault")})
	refused(t, v.Drawer("person"), "gone", "r", sealed, ErrShredded)
	opens(t, v.Drawer("person"), "stays", "r", other, canary)
	// Not even a backup from before brings the key back, as long as the vault remembers.
	if err := v.Import(ctx, &before); err != nil {
		t.Fatal(err)
	}
	refused(t, v.Drawer("person"), "gone", "r", sealed, ErrShredded)
	opens(t, v.Drawer("person"), "stays", "r", other, canary)
	grep(t, filepath.Join(dir, "vault"), map[string][]byte{}, secrets)
}

func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	v := open(t, Config{Dir: dir})
	if other, err := Open(t.Context(), Config{Dir: dir}); !errors.Is(err, state.ErrLocked) {
		t.Errorf("opened twice: %v, %v", other, err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, Config{Dir: dir})
}

// Many at once make, use and shred the keys of few owners. Whoever was shredded stays so.
func TestHammer(t *testing.T) {
	t.Parallel()
	v := open(t, Config{Cache: 8})
	d := v.Drawer("p")
	ctx := t.Context()
	const owners = 64
	var shred [owners]atomic.Bool
	var first sync.Map
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			for i := range 500 {
				n := (g*7 + i*13) % owners
				owner := fmt.Sprint("pers_", n)
				before := shred[n].Load()
				switch {
				case i%50 == 49 && n%4 == 0:
					if err := v.Shred(ctx, owner); err != nil {
						t.Error(err)
					}
					shred[n].Store(true)
				default:
					sealed, err := d.Seal(ctx, owner, "r", []byte(owner))
					switch {
					case before && !errors.Is(err, ErrShredded):
						t.Errorf("sealed for %s, who was shredded: %v", owner, err)
					case err != nil && !errors.Is(err, ErrShredded):
						t.Error(err)
					case err == nil:
						first.LoadOrStore(n, sealed)
						if plain, err := d.Open(ctx, owner, "r", sealed); err == nil && string(plain) != owner || err != nil && !errors.Is(err, ErrShredded) {
							t.Errorf("%q, %v", plain, err)
						}
					}
				}
			}
		})
	}
	all.Go(func() {
		for range 20 {
			if err := v.Rotate(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	all.Wait()
	for n := range owners {
		owner := fmt.Sprint("pers_", n)
		b, ok := first.Load(n)
		if !ok {
			continue
		}
		if shred[n].Load() {
			refused(t, d, owner, "r", b.([]byte), ErrShredded)
		} else {
			opens(t, d, owner, "r", b.([]byte), owner)
		}
	}
	if len(v.cache) > 8 {
		t.Errorf("%d keys are in a cache for 8", len(v.cache))
	}
}

// A hundred thousand owners cost memory for a tag and a place each, and their keys no more than the cache has.
func TestManyOwners(t *testing.T) { // not parallel: it measures
	n := 100_000
	if raced {
		n = 10_000
	}
	f := &memory{}
	v := open(t, Config{files: f})
	d := v.Drawer("p")
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := g; i < n; i += 8 {
				if _, err := d.Seal(t.Context(), fmt.Sprint("pers_", i), "r", nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if size, _ := v.file.Size(); v.Owners() != n || size > place(uint32(n+growth)) || len(v.cache) != DefaultCache {
		t.Errorf("%d owners, %d octets of file, %d cached", v.Owners(), size, len(v.cache))
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	again := open(t, Config{files: f, Cache: 16})
	for i := range 1000 {
		opens(t, again.Drawer("p"), fmt.Sprint("pers_", i), "r", seal(t, again.Drawer("p"), fmt.Sprint("pers_", i), "r", "x"), "x")
	}
	per := (float64(heap()) - float64(before)) / float64(n)
	t.Logf("%.0f octets an owner", per)
	if again.Owners() != n || len(again.cache) > 16 || per > 100 && !raced {
		t.Errorf("%d owners, %d cached, %.0f octets each", again.Owners(), len(again.cache), per)
	}
	runtime.KeepAlive(again)
}

// Slots of those who were shredded long ago are used again: the file grows with who is there, not with who ever was.
func TestGrowth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &memory{}
		v := open(t, Config{files: f, Remember: 24 * time.Hour})
		d := v.Drawer("p")
		for day := range 40 {
			for i := range growth {
				owner := fmt.Sprint(day, "/", i)
				seal(t, d, owner, "r", "x")
				if err := v.Shred(t.Context(), owner); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(25 * time.Hour)
		}
		if size, _ := v.file.Size(); size > place(3*growth) || len(v.index) > 3*growth {
			t.Errorf("%d octets, %d in the index", size, len(v.index))
		}
		// Whoever is remembered no longer is forgotten when the vault is opened, too.
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(25 * time.Hour)
		v = open(t, Config{files: f, Remember: 24 * time.Hour})
		if len(v.index) != 0 {
			t.Errorf("%d are remembered", len(v.index))
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Damage that no crash makes is told of, touches nobody else, and is not repaired over what might be saved.
func TestDamage(t *testing.T) {
	t.Parallel()
	for at := range slotSize {
		f := &memory{}
		v := open(t, Config{files: f})
		one, two := seal(t, v.Drawer("p"), "one", "r", "1"), seal(t, v.Drawer("p"), "two", "r", "2")
		pos := place(v.index[v.tagOf("one")].slot) + int64(at)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if _, err := f.files[keysFile].ReadAt(b, pos); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0x10
		if _, err := f.files[keysFile].WriteAt(b, pos); err != nil {
			t.Fatal(err)
		}
		v = open(t, Config{files: f})
		opens(t, v.Drawer("p"), "two", "r", two, "2")
		want := ErrDamaged
		if at >= 16 && at < 32 { // the tag: whose it was can not be said any more
			want = ErrShredded
		}
		refused(t, v.Drawer("p"), "one", "r", one, want)
		if err := v.Rotate(t.Context()); err != nil {
			t.Error(err)
		}
		refused(t, v.Drawer("p"), "one", "r", one, want)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// A header that is not one is refused.
	f := &memory{}
	v := open(t, Config{files: f})
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.files[keysFile].WriteAt([]byte{0}, 30); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{files: f}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged header: %v", err)
	}
}

func random() []byte {
	b := make([]byte, KeySize)
	rand.Read(b)
	return b
}

func TestMaster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx := t.Context()
	a, b, c := random(), random(), random()
	var sealed []byte
	steps := []struct {
		name   string
		config Config
		want   error
		kept   bool // a master key is in the folder afterwards
	}{
		{"made and kept", Config{}, nil, true},
		{"kept", Config{}, nil, true},
		{"moved to a secret", Config{Master: a}, nil, false},
		{"the same secret", Config{Master: a, Previous: c}, nil, false},
		{"forgotten", Config{}, ErrMaster, false},
		{"another secret", Config{Master: b}, ErrMaster, false},
		{"another secret and its predecessor", Config{Master: b, Previous: a}, nil, false},
		{"the predecessor", Config{Master: a}, ErrMaster, false},
		{"from a secret to a file", Config{Previous: b}, nil, true},
		{"kept again", Config{}, nil, true},
	}
	for i, s := range steps {
		s.config.Dir, s.config.Log = dir, slog.New(slog.DiscardHandler)
		v, err := Open(ctx, s.config)
		if !errors.Is(err, s.want) || (err == nil) != (s.want == nil) {
			t.Fatalf("%s: %v, want %v", s.name, err, s.want)
		}
		if err == nil {
			if i == 0 {
				sealed = seal(t, v.Drawer("p"), "one", "r", "1")
			}
			opens(t, v.Drawer("p"), "one", "r", sealed, "1")
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
		}
		info, err := os.Stat(filepath.Join(dir, masterFile))
		if (err == nil) != s.kept || s.kept && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: the file of the master key: %v, %v", s.name, info, err)
		}
	}
	kept, err := os.ReadFile(filepath.Join(dir, masterFile))
	if err != nil {
		t.Fatal(err)
	}
	v := open(t, Config{Dir: dir})
	if err := v.Rotate(ctx); err != nil {
		t.Fatal(err)
	}
	opens(t, v.Drawer("p"), "one", "r", sealed, "1")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	grep(t, dir, map[string][]byte{}, map[string][]byte{"the old master key": bytes.TrimSpace(kept)})
	v = open(t, Config{Dir: dir})
	opens(t, v.Drawer("p"), "one", "r", sealed, "1")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{"a short key": {Master: a[:31]}, "a long predecessor": {Previous: append(b, 1)}, "withheld": {Withheld: true}} {
		c.Dir = dir
		if _, err := Open(ctx, c); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	// The file of the keys alone is of no use, and no new one is made beside a master key that had one.
	if err := os.Remove(filepath.Join(dir, keysFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, Config{Dir: dir}); !errors.Is(err, ErrMaster) {
		t.Errorf("without the file of the keys: %v", err)
	}
	given := open(t, Config{Master: a})
	if err := given.Rotate(ctx); err == nil {
		t.Error("rotated a key that is not the vault's own")
	}
}

// Files that a restore left readable by others are made their user's own.
func TestMode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	v := open(t, Config{Dir: dir})
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{masterFile, keysFile} {
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	open(t, Config{Dir: dir})
	for _, name := range []string{masterFile, keysFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestBackup(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	master := random()
	from := open(t, Config{Master: master})
	sealed := map[string][]byte{}
	for i := range 1000 {
		owner := fmt.Sprint("pers_", i)
		sealed[owner] = seal(t, from.Drawer("p"), owner, "r", owner)
	}
	if err := from.Shred(ctx, "pers_7"); err != nil {
		t.Fatal(err)
	}
	var backup bytes.Buffer
	if err := from.Export(ctx, &backup); err != nil {
		t.Fatal(err)
	}
	whole := backup.Bytes()
	for name, to := range map[string]*Vault{
		"into an empty vault":        open(t, Config{Master: master}),
		"under the next master key":  open(t, Config{Master: random(), Previous: master}),
		"into the vault it is of":    from,
		"and into one that keeps it": open(t, Config{Previous: master}),
	} {
		if err := to.Import(ctx, bytes.NewReader(whole)); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for owner, b := range sealed {
			if owner == "pers_7" {
				refused(t, to.Drawer("p"), owner, "r", b, ErrShredded)
			} else {
				opens(t, to.Drawer("p"), owner, "r", b, owner)
			}
		}
	}
	used := open(t, Config{Master: master})
	mine := seal(t, used.Drawer("p"), "mine", "r", "m")
	for name, c := range map[string]struct {
		to   *Vault
		from []byte
		want error
	}{
		"another vault's":         {used, whole, ErrNotEmpty},
		"another master key":      {open(t, Config{}), whole, ErrMaster},
		"nothing":                 {used, nil, ErrBackup},
		"another file altogether": {used, bytes.Repeat([]byte("x"), 4096), ErrBackup},
	} {
		if err := c.to.Import(ctx, bytes.NewReader(c.from)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for _, n := range []int{1, 40, headerSize, headerSize + 1, headerSize + 64, len(whole) - 41, len(whole) - 33, len(whole) - 1} {
		to := open(t, Config{Master: master})
		if err := to.Import(ctx, bytes.NewReader(whole[:n])); !errors.Is(err, ErrBackup) || to.Owners() != 0 {
			t.Errorf("the first %d octets: %v, %d owners", n, err, to.Owners())
		}
		bad := bytes.Clone(whole)
		bad[n] ^= 1
		if err := to.Import(ctx, bytes.NewReader(bad)); err == nil || to.Owners() != 0 {
			t.Errorf("octet %d changed: %v, %d owners", n, err, to.Owners())
		}
	}
	opens(t, used.Drawer("p"), "mine", "r", mine, "m")
}

func TestAllocations(t *testing.T) {
	v := open(t, Config{})
	d := v.Drawer("usage")
	plain := make([]byte, 1000)
	sealed := seal(t, d, "acct_a", "record", string(plain))
	ctx := context.Background()
	if n := testing.AllocsPerRun(100, func() { _, _ = d.Seal(ctx, "acct_a", "record", plain) }); n > 1 {
		t.Errorf("Seal makes %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = d.Open(ctx, "acct_a", "record", sealed) }); n > 1 {
		t.Errorf("Open makes %v allocations", n)
	}
}

func BenchmarkSeal(b *testing.B) {
	d := open(b, Config{}).Drawer("usage")
	plain := make([]byte, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Seal(b.Context(), "acct_a", "record", plain); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFirst is an owner's first use: a key made, durably, by many at once.
func BenchmarkFirst(b *testing.B) {
	d := open(b, Config{Dir: b.TempDir()}).Drawer("usage")
	var n atomic.Int64
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := d.Seal(context.Background(), fmt.Sprint(n.Add(1)), "record", nil); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// No file of keys and no import makes the vault panic, or open what was never sealed.
func FuzzFiles(f *testing.F) {
	v, err := Open(context.Background(), Config{Master: make([]byte, KeySize)})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := v.Drawer("p").Seal(context.Background(), "one", "r", nil); err != nil {
		f.Fatal(err)
	}
	if err := v.Shred(context.Background(), "two"); err != nil {
		f.Fatal(err)
	}
	var out bytes.Buffer
	if err := v.Export(context.Background(), &out); err != nil {
		f.Fatal(err)
	}
	b := make([]byte, place(3))
	if _, err := v.file.ReadAt(b, 0); err != nil {
		f.Fatal(err)
	}
	if err := v.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		files := &memory{files: map[string]*memoryFile{keysFile: {b: bytes.Clone(b)}}}
		for range 2 { // the second time it is as the first left it
			v, err := Open(t.Context(), Config{Master: make([]byte, KeySize), files: files, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				break
			}
			if _, err := v.Drawer("p").Seal(t.Context(), "new", "r", nil); err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrShredded) {
				t.Error(err)
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		}
		to := open(t, Config{Master: make([]byte, KeySize)})
		_ = to.Import(t.Context(), bytes.NewReader(b))
	})
}
