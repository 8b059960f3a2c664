//go:build linux || darwin || freebsd

package badger

import "syscall"

// freeSpace returns how many octets of the disk that dir is on this process may still use.
func freeSpace(dir string) (free uint64, known bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, false
	}
	return uint64(st.Bavail) * uint64(st.Bsize), true //nolint:unconvert // the types differ between systems
}
