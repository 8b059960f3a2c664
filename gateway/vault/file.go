package vault

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/postern-gateway/postern/gateway/state"
)

// folder is where a vault's files are.
type folder interface {
	// Open opens a file for reading and writing; an error that is fs.ErrNotExist says that there is none.
	Open(name string) (file, error)
	// Create makes an empty file that only its own user can read, in the place of one that is there.
	Create(name string) (file, error)
	// Rename and Remove are on the disk when they return. Removing what is not there is no error.
	Rename(from, to string) error
	Remove(name string) error
}

// file is one of them.
type file interface {
	io.ReaderAt
	io.WriterAt
	Size() (int64, error)
	Sync() error
	Close() error
}

// disk is a folder of the file system.
type disk struct{ dir string }

// openFolder makes the folder if it is not there, and locks it.
func openFolder(dir string) (folder, *os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	lock, err := state.LockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, nil, err
	}
	return disk{dir}, lock, nil
}

func (d disk) Open(name string) (file, error) {
	return opened(os.OpenFile(filepath.Join(d.dir, name), os.O_RDWR, 0))
}

func (d disk) Create(name string) (file, error) {
	path := filepath.Join(d.dir, name)
	f, err := opened(os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600))
	if err != nil {
		return nil, err
	}
	if err := state.SyncDir(path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d disk) Rename(from, to string) error {
	to = filepath.Join(d.dir, to)
	if err := os.Rename(filepath.Join(d.dir, from), to); err != nil {
		return err
	}
	return state.SyncDir(to)
}

func (d disk) Remove(name string) error { return state.RemoveFile(filepath.Join(d.dir, name)) }

// opened takes the right to read and write from all but the file's own user: it may have been put there by a restore.
func opened(f *os.File, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || info.Mode().Perm()&0o077 != 0 {
		if err == nil {
			err = f.Chmod(0o600)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return diskFile{f}, nil
}

type diskFile struct{ *os.File }

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// memory is a folder that ends with the process.
type memory struct {
	mu    sync.Mutex
	files map[string]*memoryFile
}

func (m *memory) Open(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.files[name]; f != nil {
		return f, nil
	}
	return nil, fs.ErrNotExist
}

func (m *memory) Create(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.files == nil {
		m.files = map[string]*memoryFile{}
	}
	m.files[name] = &memoryFile{}
	return m.files[name], nil
}

func (m *memory) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[to] = m.files[from]
	delete(m.files, from)
	return nil
}

func (m *memory) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.files, name)
	return nil
}

type memoryFile struct {
	mu sync.RWMutex
	b  []byte
}

func (f *memoryFile) ReadAt(p []byte, at int64) (int, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if at >= int64(len(f.b)) {
		return 0, io.EOF
	}
	n := copy(p, f.b[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memoryFile) WriteAt(p []byte, at int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if grow := at + int64(len(p)) - int64(len(f.b)); grow > 0 {
		f.b = append(f.b, make([]byte, grow)...)
	}
	return copy(f.b[at:], p), nil
}

func (f *memoryFile) Size() (int64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return int64(len(f.b)), nil
}

func (f *memoryFile) Sync() error  { return nil }
func (f *memoryFile) Close() error { return nil }
