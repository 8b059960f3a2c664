//go:build !(linux || darwin || freebsd)

package badger

import "os"

// freeSpace does not know how to ask this system.
func freeSpace(string) (free uint64, known bool) { return 0, false }

// lockFile makes the file and leaves the locking to Badger, which has its own.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}
