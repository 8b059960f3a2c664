//go:build !(linux || darwin || freebsd)

package state

import "os"

// LockFile makes the file and does not lock it: Badger has a lock of its own.
func LockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}
