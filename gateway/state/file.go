package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile makes a file that is on the disk, name and all, when it returns.
func WriteFile(path string, octets []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(octets)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), SyncDir(path))
}

// RemoveFile removes a file, if it is there, so that it stays removed.
func RemoveFile(path string) error {
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return SyncDir(path)
}

// SyncDir puts the folder that path is in on the disk.
func SyncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
