package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed assets
var assetFiles embed.FS

// assets are the files that pages refer to, by names that change with their contents, so that browsers keep them for good.
type assets struct {
	byName map[string]string // "console.css" to "console.0123456789ab.css"
	files  map[string]*asset // by the latter
}

type asset struct {
	kind         string
	plain, small []byte // as it is, and compressed
}

func loadAssets() (*assets, error) {
	a := &assets{byName: map[string]string{}, files: map[string]*asset{}}
	list, err := assetFiles.ReadDir("assets")
	if err != nil {
		return nil, err
	}
	for _, f := range list {
		b, err := assetFiles.ReadFile("assets/" + f.Name())
		if err != nil {
			return nil, err
		}
		var small bytes.Buffer
		z := gzip.NewWriter(&small)
		if _, err := z.Write(b); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
		sum := sha256.Sum256(b)
		ext := path.Ext(f.Name())
		name := strings.TrimSuffix(f.Name(), ext) + "." + hex.EncodeToString(sum[:6]) + ext
		a.byName[f.Name()] = name
		a.files[name] = &asset{kind: mime.TypeByExtension(ext), plain: b, small: small.Bytes()}
	}
	return a, nil
}

// path is where a page finds the file.
func (a *assets) path(name string) string { return "/assets/" + a.byName[name] }

func (a *assets) serve(w http.ResponseWriter, r *http.Request) {
	f := a.files[r.PathValue("file")]
	if f == nil {
		problem(w, http.StatusNotFound, "not_found", "There is no such file.")
		return
	}
	h, b := w.Header(), f.plain
	h.Set("Content-Type", f.kind)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		b = f.small
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client may have gone
}
