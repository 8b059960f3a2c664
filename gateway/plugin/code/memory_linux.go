package code

import "syscall"

// reserve gets octets of zeros that take no memory until they are touched; nil: the system has none.
func reserve(octets uint64) []byte {
	b, err := syscall.Mmap(-1, 0, int(octets), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
	if err != nil {
		return nil
	}
	return b
}

// release gives back what reserve gave.
func release(b []byte) { _ = syscall.Munmap(b) } // it fails for what was never reserved alone
