package badger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"

	"github.com/postern-gateway/postern/gateway/secret"
	"github.com/postern-gateway/postern/gateway/state"
)

// Backend is the backend "badger" of the state block:
//
//	dir             the data folder; relative to the configuration's folder
//	sync            whether a commit waits for the disk; default true
//	reserve         free disk below which nothing is written, such as "64MiB", the default; at least "32MiB"
//	encryption_key  hexadecimal or base64 of 16, 24 or 32 octets; default: files are not encrypted
func Backend() state.Backend {
	optional := func(name string, kind cty.Type) hcldec.Spec { return &hcldec.AttrSpec{Name: name, Type: kind} }
	return state.Backend{
		Name: "badger",
		Spec: hcldec.ObjectSpec{
			"dir":            &hcldec.AttrSpec{Name: "dir", Type: cty.String, Required: true},
			"sync":           optional("sync", cty.Bool),
			"reserve":        optional("reserve", cty.String),
			"encryption_key": optional("encryption_key", cty.String),
		},
		Open: open,
	}
}

// open opens the store that a state block describes.
func open(ctx context.Context, dir string, arguments cty.Value, log *slog.Logger) (state.Store, error) {
	arguments, _ = arguments.UnmarkDeep() // a secret is marked as one
	c, err := decode(dir, arguments)
	if err != nil {
		return nil, fmt.Errorf("state \"badger\": %w", err)
	}
	c.Log = log
	s, err := Open(ctx, c)
	if err != nil {
		return nil, err // not s: a nil *Store in the interface would not be nil
	}
	return s, nil
}

// decode reads the block's arguments.
func decode(dir string, arguments cty.Value) (Config, error) {
	get := func(name string, kind cty.Type) (cty.Value, bool) {
		if !arguments.Type().IsObjectType() || !arguments.Type().HasAttribute(name) {
			return cty.NilVal, false
		}
		v := arguments.GetAttr(name)
		return v, !v.IsNull() && v.IsKnown() && v.Type() == kind
	}
	var c Config
	v, ok := get("dir", cty.String)
	if !ok || v.AsString() == "" {
		return c, errors.New("dir is required: the folder to keep data in")
	}
	c.Dir = v.AsString()
	if !filepath.IsAbs(c.Dir) {
		c.Dir = filepath.Join(dir, c.Dir)
	}
	if v, ok := get("sync", cty.Bool); ok {
		c.NoSync = v.False()
	}
	var err error
	if v, ok := get("reserve", cty.String); ok {
		if c.Reserve, err = parseSize(v.AsString()); err != nil {
			return c, fmt.Errorf("reserve: %w", err)
		}
	}
	if v, ok := get("encryption_key", cty.String); ok {
		if c.EncryptionKey, err = secret.ParseKey(v.AsString(), 16, 24, 32); err != nil {
			return c, fmt.Errorf("encryption_key: %w", err)
		}
	}
	return c, nil
}

// parseSize reads a number of octets such as "64MiB" or "1GiB".
func parseSize(text string) (int64, error) {
	for unit, shift := range map[string]uint{"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			if n, err := strconv.ParseUint(number, 10, 22); err == nil && n > 0 {
				return int64(n) << shift, nil
			}
		}
	}
	return 0, fmt.Errorf("%q is not a size: write one such as \"64MiB\"", text)
}
