//go:build linux || darwin || freebsd

package state

import (
	"errors"
	"os"
	"syscall"
)

// LockFile makes and locks the file at path until it is closed; another lock on it gives ErrLocked. The kernel
// lets go of the lock when the process ends, however it ends.
func LockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, err
	}
	return f, nil
}
