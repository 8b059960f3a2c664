package bundle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/manifest"
	"github.com/postern-gateway/postern/gateway/plugin/admission"
	"github.com/postern-gateway/postern/gateway/plugin/wasmtest"
)

// TestOpen puts modules and manifests where they may be, and where they may not.
func TestOpen(t *testing.T) {
	t.Parallel()
	bare := wasmtest.Policy(wasmtest.Answer(0, 0, 0)).Bytes()
	packed, err := manifest.Pack(bare, []byte("packed"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		files  map[string][]byte
		source string
		check  func(b *Bundle) bool
	}{
		{"a folder", map[string][]byte{"p/p.wasm": bare, "p/plugin.hcl": []byte("text")}, "p", func(b *Bundle) bool {
			return b.Missing == nil && b.Refusal == nil && string(b.Manifest) == "text" && filepath.Base(b.Name) == "plugin.hcl" && len(b.Digest) == 64
		}},
		{"admitted", map[string][]byte{"p/p.wasm": bare}, "p", func(b *Bundle) bool {
			m, err := b.Admit(64 << 20)
			_, small := b.Admit(64 << 10)
			return err == nil && m.Functions() == 3 && small != nil
		}},
		{"not built", map[string][]byte{"p/plugin.hcl": []byte("text")}, "p/", func(b *Bundle) bool {
			return errors.Is(b.Missing, fs.ErrNotExist) && string(b.Manifest) == "text" && b.Refusal == nil
		}},
		{"packed", map[string][]byte{"p/p.wasm": packed}, "p", func(b *Bundle) bool {
			return string(b.Manifest) == "packed" && strings.HasSuffix(filepath.ToSlash(b.Name), "p/p.wasm/plugin.hcl") && !b.Stale
		}},
		{"stale", map[string][]byte{"p/p.wasm": packed, "p/plugin.hcl": []byte("text")}, "p", func(b *Bundle) bool {
			return string(b.Manifest) == "text" && b.Stale
		}},
		{"a file", map[string][]byte{"x.wasm": packed, "plugin.hcl": []byte("text")}, "x.wasm", func(b *Bundle) bool {
			return string(b.Manifest) == "packed" && !b.Stale
		}},
		{"a file without", map[string][]byte{"x.wasm": bare, "plugin.hcl": []byte("text")}, "x.wasm", func(b *Bundle) bool {
			return string(b.Manifest) == "text"
		}},
		{"no manifest", map[string][]byte{"p/p.wasm": bare}, "p", func(b *Bundle) bool {
			return b.Manifest == nil && errors.Is(b.Absent, fs.ErrNotExist)
		}},
		{"no module", map[string][]byte{"p/p.wasm": []byte("text"), "p/plugin.hcl": []byte("text")}, "p", func(b *Bundle) bool {
			var r *admission.Refusal
			_, err := b.Admit(64 << 20)
			return b.Refusal != nil && errors.As(err, &r) && string(b.Manifest) == "text"
		}},
		{"two manifests", map[string][]byte{"p/p.wasm": append(append([]byte{}, packed...), packed[len(bare):]...)}, "p", func(b *Bundle) bool {
			return b.Refusal != nil && b.Manifest == nil
		}},
		{"a folder as module", map[string][]byte{"p/p.wasm/x": nil}, "p", func(b *Bundle) bool {
			return b.Missing != nil && b.Module == nil
		}},
		{"a huge manifest", map[string][]byte{"p/p.wasm": bare, "p/plugin.hcl": make([]byte, maxManifest+1)}, "p", func(b *Bundle) bool {
			return b.Absent != nil && b.Manifest == nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, content := range c.files {
				path := filepath.Join(dir, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			b := Open(filepath.Join(dir, c.source))
			if !c.check(b) {
				t.Errorf("%+v", b)
			}
		})
	}
}
