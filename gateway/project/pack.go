package project

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/postern-gateway/postern/gateway/manifest"
)

type packCommand struct {
	Module   string `arg:"" type:"existingfile" help:"The .wasm file."`
	Manifest string `placeholder:"FILE" help:"The manifest; by default plugin.hcl beside the module."`
	Out      string `short:"o" placeholder:"FILE" help:"The file to write; by default the module itself."`
}

// Run packs a manifest into a module, in the place of any that is there.
func (c *packCommand) Run(s *Shell) error {
	wasm, err := readFile(c.Module, maxRead)
	if err != nil {
		return err
	}
	from := c.Manifest
	if from == "" {
		from = filepath.Join(filepath.Dir(c.Module), ManifestFile)
	}
	text, err := readFile(from, manifest.MaxSize)
	if err != nil {
		return err
	}
	m, err := s.parse(text, from)
	if err != nil {
		return err
	}
	packed, err := manifest.Pack(wasm, text)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Module, err)
	}
	out := c.Out
	if out == "" {
		out = c.Module
	}
	if filepath.Ext(out) != ".wasm" {
		return errors.New("the file to write must end in .wasm: gateways know modules by that")
	}
	name := strings.TrimSuffix(filepath.Base(out), ".wasm")
	return s.deliver(&Project{Name: name, Manifest: m}, packed, out)
}
