package code

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
)

const (
	// mostKept bounds the machine code on disk, in octets: what was not used for the longest goes first, at a start.
	mostKept = 512 << 20
	// sealed ends the name of the file that says which machine code an engine made of a module, and what its hash is.
	sealed = ".sealed"
	// staged begins the name of a folder that is being filled.
	staged = "new-"
)

// store keeps machine code on disk. The engine has a cache of its own, which it trusts: a file that is cut or damaged can
// make it ask for gigabytes. So nothing is in there that is not sealed: a file beside it holds the hash of the whole, and
// what does not fit its seal is thrown away and compiled again. A seal protects against accidents, not against somebody
// who can write to the folder: nobody else must be able to.
type store struct {
	dir    string
	engine string // the folder in dir that this version of the engine looks into; what another version made is not for it
	temp   bool   // removed by close
	log    *slog.Logger
}

// openStore opens a folder, or makes one for this process alone where dir is empty.
func openStore(dir string, log *slog.Logger) (*store, error) {
	s := &store{dir: dir, log: log}
	if dir == "" {
		made, err := os.MkdirTemp("", "postern-code-")
		if err != nil {
			return nil, fmt.Errorf("make a folder for compiled plugins: %w", err)
		}
		s.dir, s.temp = made, true
		if err := s.version(); err != nil {
			return nil, errors.Join(err, s.close())
		}
		return s, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open plugin cache %s: %w", dir, err)
	}
	if err := private(dir); err != nil {
		return nil, fmt.Errorf("open plugin cache %s: %w", dir, err)
	}
	s.prune()
	if err := s.version(); err != nil {
		return nil, err
	}
	return s, nil
}

// version finds out the name of the engine's folder, which the engine itself chooses: by its version and the machine's kind.
func (s *store) version() error {
	dir, err := s.stage()
	if err != nil {
		return err
	}
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err == nil {
		err = cache.Close(context.Background())
	}
	made, _ := os.ReadDir(dir)
	if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
		return fmt.Errorf("open plugin cache %s: %w", s.dir, err)
	}
	if len(made) != 1 {
		return fmt.Errorf("open plugin cache %s: the engine made %d folders, not 1", s.dir, len(made))
	}
	s.engine = made[0].Name()
	return nil
}

// seal is the path of the file that seals what this engine made of a module.
func (s *store) seal(key string) string { return filepath.Join(s.dir, key+"."+s.engine+sealed) }

func (s *store) close() error {
	if !s.temp {
		return nil
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove compiled plugins: %w", err)
	}
	return nil
}

// stage makes a folder to compile into.
func (s *store) stage() (string, error) {
	dir, err := os.MkdirTemp(s.dir, staged)
	if err != nil {
		return "", fmt.Errorf("keep compiled plugins: %w", err)
	}
	return dir, nil
}

// has reports whether the machine code of a module is there, as it was when it was sealed.
func (s *store) has(key string) bool {
	path := s.seal(key)
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	name, want, ok := strings.Cut(strings.TrimSpace(string(text)), " ")
	if !ok || !filepath.IsLocal(name) || filepath.Dir(filepath.FromSlash(name)) != s.engine {
		_ = os.Remove(path) // worth nothing; what is compiled next replaces it
		return false
	}
	got, err := hashOf(filepath.Join(s.dir, name))
	if err == nil && got == want {
		now := time.Now()
		_ = os.Chtimes(path, now, now) // only decides what goes first when there is too much
		return true
	}
	if err == nil || !missing(err) {
		s.log.Warn("compiled plugin is damaged and is compiled again", "file", name, "error", err)
	}
	_ = os.Remove(filepath.Join(s.dir, name)) // a new one replaces it
	_ = os.Remove(path)
	return false
}

// adopt moves what was compiled into a stage to its place and seals it.
func (s *store) adopt(key, stage string) error {
	made, err := filepath.Glob(filepath.Join(stage, "*", "*"))
	if err != nil || len(made) != 1 {
		return fmt.Errorf("compiling left %d files, not 1", len(made))
	}
	sum, err := hashOf(made[0])
	if err != nil {
		return fmt.Errorf("keep compiled plugins: %w", err)
	}
	name, err := filepath.Rel(stage, made[0])
	if err != nil {
		return fmt.Errorf("keep compiled plugins: %w", err)
	}
	if filepath.Dir(name) != s.engine { // the engine here would compile it again, within this process
		return fmt.Errorf("the process that compiles plugins has another engine: %s, not %s", filepath.Dir(name), s.engine)
	}
	place := filepath.Join(s.dir, name)
	err = os.MkdirAll(filepath.Dir(place), 0o700)
	if err == nil {
		err = os.Rename(made[0], place)
	}
	sealing := filepath.Join(stage, "seal")
	if err == nil {
		err = os.WriteFile(sealing, []byte(filepath.ToSlash(name)+" "+sum+"\n"), 0o600)
	}
	if err == nil {
		err = os.Rename(sealing, s.seal(key))
	}
	if err != nil {
		return fmt.Errorf("keep compiled plugins: %w", err)
	}
	return nil
}

// prune removes what was left behind, what nothing names, and what is too much. Another process may use the folder: what
// it loses it compiles again.
func (s *store) prune() {
	type kept struct {
		seal, file string
		used       time.Time
		size       int64
	}
	var (
		all   []kept
		named = map[string]bool{}
	)
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		info, bad := e.Info()
		if bad != nil {
			continue
		}
		path := filepath.Join(s.dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), staged):
			if time.Since(info.ModTime()) > time.Hour {
				err = errors.Join(err, os.RemoveAll(path))
			}
		case strings.HasSuffix(e.Name(), sealed):
			text, bad := os.ReadFile(path)
			name, _, _ := strings.Cut(string(text), " ")
			file, stat := filepath.Join(s.dir, name), fs.FileInfo(nil)
			if bad == nil && filepath.IsLocal(name) {
				stat, bad = os.Stat(file)
			}
			if bad != nil || stat == nil {
				err = errors.Join(err, os.Remove(path))
				continue
			}
			named[file] = true
			all = append(all, kept{seal: path, file: file, used: info.ModTime(), size: stat.Size()})
		}
	}
	slices.SortFunc(all, func(a, b kept) int { return cmp.Compare(b.used.UnixNano(), a.used.UnixNano()) })
	total := int64(0)
	for _, k := range all {
		if total += k.size; total > mostKept {
			err = errors.Join(err, os.Remove(k.seal), os.Remove(k.file))
		}
	}
	files, bad := filepath.Glob(filepath.Join(s.dir, "wazero-*", "*"))
	err = errors.Join(err, bad)
	for _, f := range files {
		if info, bad := os.Stat(f); bad == nil && !named[f] && time.Since(info.ModTime()) > time.Hour {
			err = errors.Join(err, os.Remove(f))
		}
	}
	if err != nil {
		s.log.Warn("clean the plugin cache", "dir", s.dir, "error", err)
	}
}

// hashOf is the SHA-256 of a file, in hexadecimal.
func hashOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
