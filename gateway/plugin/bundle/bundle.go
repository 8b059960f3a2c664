// Package bundle finds a plugin on disk: its main type is Bundle, a module and the manifest that belongs to it.
package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin/admission"
)

// Bounds of files, in octets: more than admission and the manifest's parser take, so that they can say what is wrong.
const (
	maxFile     = 64 << 20
	maxManifest = 1 << 20
)

// Bundle is what stands at a plugin's source: a folder x/name with plugin.hcl and name.wasm, or a .wasm file that holds its
// manifest or has plugin.hcl beside it.
type Bundle struct {
	Path    string // of the module
	Module  []byte // nil when it can not be read
	Digest  string // SHA-256 of the module in hexadecimal
	Missing error  // why it can not be read
	Refusal error  // the module's sections can not be told apart

	Manifest []byte // the text; nil when there is none
	Name     string // of the manifest, to be shown: its file, or the module's with /plugin.hcl behind it
	Absent   error  // why there is no manifest
	Stale    bool   // the module holds another manifest than the plugin.hcl beside it, which counts
}

// Open reads what stands at source. Of the module only the headers of its sections are looked at.
func Open(source string) *Bundle {
	source = filepath.Clean(source)
	file := filepath.Ext(source) == ".wasm"
	b := &Bundle{Path: source}
	folder := filepath.Dir(source)
	if !file {
		folder, b.Path = source, filepath.Join(source, filepath.Base(source)+".wasm")
	}
	var packed []byte
	b.Module, b.Missing = read(b.Path, maxFile)
	if b.Missing == nil {
		sum := sha256.Sum256(b.Module)
		b.Digest = hex.EncodeToString(sum[:])
		packed, _, b.Refusal = manifest.Section(b.Module)
	}
	b.Name = filepath.Join(folder, "plugin.hcl")
	b.Manifest, b.Absent = read(b.Name, maxManifest)
	switch {
	case packed != nil && (b.Absent != nil || file):
		b.Manifest, b.Absent, b.Name = packed, nil, filepath.Join(b.Path, "plugin.hcl")
	case packed != nil && !bytes.Equal(b.Manifest, packed):
		b.Stale = true
	}
	return b
}

// Admit reads the module whole, as admission does before it is run; memory is the most the plugin may have, in octets.
func (b *Bundle) Admit(memory int64) (*admission.Module, error) {
	if b.Missing != nil {
		return nil, b.Missing
	}
	return admission.Read(b.Module, admission.Limits{Memory: memory})
}

func read(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("not a file")
	case info.Size() > most:
		return nil, fmt.Errorf("larger than %d octets", most)
	}
	return os.ReadFile(path)
}
