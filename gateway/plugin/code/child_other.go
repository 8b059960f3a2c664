//go:build !linux

package code

import "os/exec"

// running is a name that no program has.
const running = ""

// bound does nothing here: what bounds the process is the time after which it is killed, and the memory its heap aims for.
func bound(int64, uint64) error { return nil }

// apart leaves a process as it is; it is killed alone, and starts no others.
func apart(*exec.Cmd) {}

func behind(int) {}

// private trusts the folder: it was made for its owner alone where the system knows such a thing.
func private(string) error { return nil }

// reserve leaves memory to make.
func reserve(uint64) []byte { return nil }

func release([]byte) {}
