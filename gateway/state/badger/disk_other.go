//go:build !(linux || darwin || freebsd)

package badger

// freeSpace does not know how to ask this system.
func freeSpace(string) (free uint64, known bool) { return 0, false }
