package badger

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-gateway/postern/gateway/state"
)

// room returns state.ErrFull when the disk is at low water. It looks each time: one system call of about a microsecond.
func (s *Store) room() error {
	free, known := s.free(s.dir)
	if known && free < s.reserve {
		return fmt.Errorf("%w: %d MiB free on the disk of %s, and %d MiB are to stay free", state.ErrFull, free>>20, s.dir, s.reserve>>20)
	}
	return nil
}

// ballastFile is where the ballast is.
func (s *Store) ballastFile() string { return filepath.Join(s.dir, "ballast") }

// tendBallast gives the ballast up when the disk is nearly full, so that what Badger does in the background can still
// end, and takes it again when there is plenty.
func (s *Store) tendBallast() error {
	free, known := s.free(s.dir)
	switch {
	case !known:
		return nil
	case free < s.reserve/2:
		return s.dropBallast()
	case free > s.reserve+2*uint64(max(s.ballast, 0)):
		return s.keepBallast()
	}
	return nil
}

// keepBallast writes the ballast unless it is there. Its octets are random because file systems store zeros for nothing.
func (s *Store) keepBallast() error {
	if s.ballast < 0 {
		return nil
	}
	if info, err := os.Stat(s.ballastFile()); err == nil && info.Size() == s.ballast {
		return nil
	}
	octets := make([]byte, s.ballast)
	source := rand.NewChaCha8([32]byte{'b', 'a', 'l', 'l', 'a', 's', 't'})
	source.Read(octets) //nolint:errcheck // never fails
	if err := state.WriteFile(s.ballastFile(), octets); err != nil {
		return fmt.Errorf("write ballast: %w", errors.Join(err, s.dropBallast()))
	}
	return nil
}

func (s *Store) dropBallast() error { return state.RemoveFile(s.ballastFile()) }

// isSyncFault recognises the one error that Badger logs and otherwise forgets though data may be lost by it: a value log
// that could not be synced.
func isSyncFault(message string) bool { return strings.Contains(message, "sync:") }
