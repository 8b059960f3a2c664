//go:build linux || darwin || freebsd

package badger

import (
	"errors"
	"os"
	"syscall"

	"github.com/postern-gateway/postern/gateway/state"
)

// freeSpace returns how many octets of the disk that dir is on this process may still use.
func freeSpace(dir string) (free uint64, known bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return uint64(st.Bavail) * uint64(st.Bsize), true //nolint:unconvert // the types differ between systems
}

// lockFile makes and locks the file at path until it is closed; another lock on it gives state.ErrLocked. The kernel
// lets go of the lock when the process ends, however it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, state.ErrLocked
		}
		return nil, err
	}
	return f, nil
}
