package notation

import (
	"bytes"
	"os"
	"path/filepath"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/schema"
)

// File is the absolute path in an argument, which must lead to a file that can be read; empty where it is not written.
func (r *Reader) File(s *schema.Section, name string) string {
	path := r.Absolute(s.Text(name))
	if path != "" {
		r.Readable(s.Where(name), name, path)
	}
	return path
}

// Readable says whether a path leads to a file that can be read, and reports why not.
func (r *Reader) Readable(at hcl.Range, name, path string) bool {
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() {
		var f *os.File
		if f, err = os.Open(path); err == nil {
			f.Close()
			return true
		}
	}
	if err == nil {
		r.Errorf(at, "Unreadable file", "%s leads to something that is not a file.", name)
	} else {
		r.Errorf(at, "Unreadable file", "The file can not be read: %s. Paths are relative to the folder of %s.", schema.Cause(err), schema.MainFile)
	}
	return false
}

// Absolute is a path as seen from the configuration's folder; nothing stays nothing.
func (r *Reader) Absolute(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(r.Dir, filepath.FromSlash(path))
}

// Relative is a path as messages show it: seen from the configuration's folder, with slashes.
func (r *Reader) Relative(path string) string {
	if rel, err := filepath.Rel(r.Dir, path); err == nil {
		path = rel
	}
	return filepath.ToSlash(path)
}

// Quoted finds a text in quotes after the start of a block, to point at it.
func (r *Reader) Quoted(block hcl.Range, name, text string) hcl.Range {
	src := r.Sources[name]
	if block.Filename == "" {
		block = schema.StartOf(name)
	}
	if block.Start.Byte > len(src) {
		return block
	}
	offset := bytes.Index(src[block.Start.Byte:], []byte(`"`+text+`"`))
	if offset < 0 {
		return block
	}
	pos := block.Start
	for _, c := range src[block.Start.Byte : block.Start.Byte+offset] {
		pos.Byte++
		pos.Column++
		if c == '\n' {
			pos.Line, pos.Column = pos.Line+1, 1
		}
	}
	end := pos
	end.Byte += len(text) + 2
	end.Column += len(text) + 2
	return hcl.Range{Filename: name, Start: pos, End: end}
}
