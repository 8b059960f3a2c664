package vault

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"testing"
)

// recorder is a folder that remembers everything done to its files, so that a test can see what a crash at any moment leaves.
type recorder struct {
	memory
	mu     sync.Mutex
	events []event
}

type event struct {
	kind     string // write, sync, create, rename, remove
	name, to string
	at       int64
	b        []byte
}

func (r *recorder) add(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) now() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events)
}

// recorded is a file of a recorder; its name changes with the file's.
type recorded struct {
	file
	r    *recorder
	name *string
}

func (r *recorder) Open(name string) (file, error) {
	f, err := r.memory.Open(name)
	if err != nil {
		return nil, err
	}
	return &recorded{f, r, r.nameOf(f)}, nil
}

func (r *recorder) nameOf(f file) *string {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	for name, other := range r.files {
		if other == f {
			return &name
		}
	}
	return nil
}

func (r *recorder) Create(name string) (file, error) {
	f, err := r.memory.Create(name)
	r.add(event{kind: "create", name: name})
	return &recorded{f, r, &name}, err
}

func (r *recorder) Rename(from, to string) error {
	r.add(event{kind: "rename", name: from, to: to})
	return r.memory.Rename(from, to)
}

func (r *recorder) Remove(name string) error {
	r.add(event{kind: "remove", name: name})
	return r.memory.Remove(name)
}

// label is the name a file has now: the open file of keys is renamed under the vault.
func (f *recorded) label() string {
	if name := f.r.nameOf(f.file); name != nil {
		return *name
	}
	return *f.name
}

func (f *recorded) WriteAt(b []byte, at int64) (int, error) {
	f.r.add(event{kind: "write", name: f.label(), at: at, b: bytes.Clone(b)})
	return f.file.WriteAt(b, at)
}

func (f *recorded) Sync() error {
	f.r.add(event{kind: "sync", name: f.label()})
	return f.file.Sync()
}

// image is what the disk has of one file: what was synced, and the writes since then, which may be there or not.
type image struct {
	durable []byte
	pending []event
}

func write(b []byte, e event, from, to int) []byte {
	f := memoryFile{b: b}
	if to > from {
		_, _ = f.WriteAt(e.b[from:to], e.at+int64(from))
	}
	return f.b
}

// crashes plays the events up to and calls f with every disk that a crash may leave then: with none, all, or some of what
// was not synced, the last write torn at every offset from either side.
func crashes(events []event, f func(files *memory)) {
	disk := map[string]*image{}
	for _, e := range events {
		switch e.kind {
		case "create":
			disk[e.name] = &image{}
		case "rename":
			disk[e.to] = disk[e.name]
			delete(disk, e.name)
		case "remove":
			delete(disk, e.name)
		case "write":
			disk[e.name].pending = append(disk[e.name].pending, e)
		case "sync":
			i := disk[e.name]
			for _, w := range i.pending {
				i.durable = write(i.durable, w, 0, len(w.b))
			}
			i.pending = nil
		}
	}
	show := func(torn func(i *image) []byte) {
		m := &memory{files: map[string]*memoryFile{}}
		for name, i := range disk {
			m.files[name] = &memoryFile{b: torn(i)}
		}
		f(m)
	}
	show(func(i *image) []byte { return bytes.Clone(i.durable) })
	widest := 0
	for _, i := range disk {
		if n := len(i.pending); n > 0 {
			widest = max(widest, len(i.pending[n-1].b))
		}
	}
	step := 1
	if widest > slotSize {
		step = 61 // a large write has nothing in it that depends on the octet
	}
	if raced {
		step *= 17
	}
	for cut := 0; widest > 0 && cut <= widest; cut += step {
		for _, head := range []bool{true, false} {
			show(func(i *image) []byte {
				b := bytes.Clone(i.durable)
				for n, w := range i.pending {
					switch at := min(cut, len(w.b)); {
					case n < len(i.pending)-1 && head:
						b = write(b, w, 0, len(w.b))
					case n < len(i.pending)-1: // the disk took the last first
					case head:
						b = write(b, w, 0, at)
					default:
						b = write(b, w, at, len(w.b))
					}
				}
				return b
			})
		}
	}
}

// A crash at any moment, with any part of what was under way on the disk, loses no key that was in use, brings none back that
// was shredded, and is mistaken for damage by nobody.
func TestCrash(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	r := &recorder{}
	type life struct {
		sealed       []byte
		wrapped      []byte
		born         int // how many events there were when the key was in use
		dying, death int // when Shred was called and when it returned; 0: not yet
	}
	lives := map[string]*life{}
	quiet := slog.New(slog.DiscardHandler)
	v, err := Open(ctx, Config{files: r, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	opened := r.now()
	born := func(owner string) {
		l := &life{sealed: seal(t, v.Drawer("p"), owner, "r", owner), born: r.now()}
		var s slot
		if _, err := v.file.ReadAt(s[:], place(v.index[v.tagOf(owner)].slot)); err != nil {
			t.Fatal(err)
		}
		l.wrapped = bytes.Clone(s[56:104])
		lives[owner] = l
	}
	dies := func(owner string) {
		lives[owner].dying = r.now()
		if err := v.Shred(ctx, owner); err != nil {
			t.Fatal(err)
		}
		lives[owner].death = r.now()
	}
	born("a")
	born("b")
	dies("a")
	born("c")
	if err := v.Shred(ctx, "never"); err != nil {
		t.Fatal(err)
	}
	never := r.now()
	if err := v.Rotate(ctx); err != nil {
		t.Fatal(err)
	}
	dies("b")
	born("d")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	states := 0
	for n := range len(r.events) + 1 {
		crashes(r.events[:n], func(files *memory) {
			states++
			// What was shredded is gone before anybody opens the files again.
			for owner, l := range lives {
				if l.death == 0 || n < l.death {
					continue
				}
				for name, f := range files.files {
					if bytes.Contains(f.b, l.wrapped) {
						t.Fatalf("event %d: %s holds the key of %s", n, name, owner)
					}
				}
			}
			for round := range 2 {
				v, err := Open(ctx, Config{files: files, Log: quiet})
				if err != nil {
					t.Fatalf("event %d of %d, opening it the %d. time: %v", n, len(r.events), round+1, err)
				}
				d := v.Drawer("p")
				for owner, l := range lives {
					plain, err := d.Open(ctx, owner, "r", l.sealed)
					switch {
					case n >= l.born && (l.dying == 0 || n <= l.dying) && (err != nil || string(plain) != owner):
						t.Fatalf("event %d: %s, who is there: %v", n, owner, err)
					case l.death != 0 && n >= l.death && !errors.Is(err, ErrShredded):
						t.Fatalf("event %d: %s, who was shredded: %v", n, owner, err)
					case err != nil && !errors.Is(err, ErrShredded):
						// A key whose making was cut off may have been made again by nobody.
						t.Fatalf("event %d: %s: %v", n, owner, err)
					}
					if l.dying != 0 && n > l.dying && err != nil {
						for name, f := range files.files {
							if bytes.Contains(f.b, l.wrapped) && n >= l.born {
								t.Fatalf("event %d: %s holds the key of %s after it was opened", n, name, owner)
							}
						}
					}
				}
				if _, err := d.Seal(ctx, "never", "r", nil); n >= never && !errors.Is(err, ErrShredded) {
					t.Fatalf("event %d: never: %v", n, err)
				}
				if _, err := d.Seal(ctx, "later", "r", nil); err != nil {
					t.Fatalf("event %d: %v", n, err)
				}
				if err := v.Close(); err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{keysFile + beside, masterFile + beside} {
					if _, err := files.Open(name); !errors.Is(err, fs.ErrNotExist) {
						t.Fatalf("event %d: %s was left", n, name)
					}
				}
			}
		})
	}
	t.Logf("%d states of the disk in %d events, %d of them of opening", states, len(r.events), opened)
	if states < 2000 && !raced {
		t.Errorf("only %d states were looked at", states)
	}
}

// A disk that fails refuses what is new, keeps what was there, and lets nobody be sealed for whom Shred was asked.
func TestFaults(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	f := &failing{}
	v := open(t, Config{files: f})
	d := v.Drawer("p")
	one := seal(t, d, "one", "r", "1")
	two := seal(t, d, "two", "r", "2")
	f.fail = true
	if _, err := d.Seal(ctx, "new", "r", nil); !errors.Is(err, errDisk) {
		t.Errorf("made on a disk that is gone: %v", err)
	}
	if err := v.Shred(ctx, "one"); !errors.Is(err, errDisk) {
		t.Errorf("shredded on a disk that is gone: %v", err)
	}
	if err := v.Shred(ctx, "unknown"); !errors.Is(err, errDisk) {
		t.Errorf("shredded on a disk that is gone: %v", err)
	}
	f.fail = false // a disk that comes back proves nothing about what it was given
	if err := v.Shred(ctx, "unknown"); !errors.Is(err, errDisk) {
		t.Errorf("shredded after a fault: %v", err)
	}
	refused(t, d, "one", "r", one, ErrShredded)
	opens(t, d, "two", "r", two, "2")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v = open(t, Config{files: f})
	if err := v.Shred(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	refused(t, v.Drawer("p"), "one", "r", one, ErrShredded)
	opens(t, v.Drawer("p"), "two", "r", two, "2")
	seal(t, v.Drawer("p"), "new", "r", "3")
}

var errDisk = errors.New("the disk is gone")

// failing is a folder whose files can be told to fail.
type failing struct {
	memory
	fail bool
}

type failingFile struct {
	file
	of *failing
}

func (f *failing) Open(name string) (file, error) {
	got, err := f.memory.Open(name)
	if err != nil {
		return nil, err
	}
	return &failingFile{got, f}, nil
}

func (f *failing) Create(name string) (file, error) {
	got, err := f.memory.Create(name)
	return &failingFile{got, f}, err
}

func (f *failingFile) WriteAt(b []byte, at int64) (int, error) {
	if f.of.fail {
		return 0, errDisk
	}
	return f.file.WriteAt(b, at)
}

func (f *failingFile) Sync() error {
	if f.of.fail {
		return errDisk
	}
	return nil
}
