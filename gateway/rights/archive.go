package rights

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/postern-gateway/postern/gateway/mail"
	"github.com/postern-gateway/postern/gateway/state"
)

// Bounds of an archive.
const (
	chunk      = 256 << 10 // octets of one record
	MaxArchive = 1 << 30   // octets in all
)

// errTooLarge ends an archive that would have more than MaxArchive octets.
var errTooLarge = fmt.Errorf("the archive would have more than %d octets", MaxArchive)

// Manifest says what is in an archive. It is its last file, manifest.json.
type Manifest struct {
	Request string         `json:"request"`
	Made    string         `json:"made"` // RFC 3339
	Files   []ManifestFile `json:"files"`
}

// ManifestFile is a file of an archive.
type ManifestFile struct {
	Name   string `json:"name"`
	Class  string `json:"class,omitempty"`
	Pieces int    `json:"pieces,omitempty"` // lines of JSON
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// export makes the archive of an export, in records sealed under the person's key.
func (r *Register) export(ctx context.Context, q Request) error {
	if err := r.discard(ctx, q.ID); err != nil { // what a crash left
		return err
	}
	to, err := r.c.People.Contact(ctx, q.Person)
	if errors.Is(err, ErrNobody) { // removed meanwhile, and the request with them
		return nil
	}
	if err != nil {
		return err
	}
	accounts, err := r.c.People.Owned(ctx, q.Person)
	if err != nil {
		return err
	}
	w := &chunks{ctx: ctx, r: r, q: q, sum: sha256.New()}
	err = r.write(ctx, w, q, Subject{Person: q.Person, Accounts: accounts})
	if err == nil {
		err = w.flush()
	}
	if err != nil && !errors.Is(err, errTooLarge) {
		return err
	}
	r.change.Lock()
	defer r.change.Unlock()
	if _, again := r.Get(ctx, q.Person, q.ID); again != nil {
		return errors.Join(r.discard(ctx, q.ID), again)
	}
	var letters []mail.Message
	if err != nil {
		q.State, q.Reason = Refused, "too_large"
		err = r.discard(ctx, q.ID)
	} else {
		q.State, q.Size, q.Digest, q.Expires = Completed, w.size, hex.EncodeToString(w.sum.Sum(nil)), r.now().Add(r.c.Archive)
		letters = append(letters, r.letter("export", q.Person, to, q.Expires))
	}
	return errors.Join(err, r.close(ctx, &q, letters...))
}

// write writes an archive: a file of JSON lines for each class, what belongs to the pieces, the policy, and the manifest.
func (r *Register) write(ctx context.Context, to io.Writer, q Request, s Subject) error {
	z := zip.NewWriter(to)
	m := Manifest{Request: q.ID, Made: r.now().Format("2006-01-02T15:04:05Z")}
	add := func(name, class string, fill func(io.Writer) (int, error)) error {
		if path.Clean(name) != name || strings.HasPrefix(name, "/") || strings.HasPrefix(name, "..") || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_./") != "" {
			return fmt.Errorf("%q is no name for a file", name)
		}
		f, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: q.Made})
		if err != nil {
			return err
		}
		count := &counter{to: f, sum: sha256.New()}
		n, err := fill(count)
		m.Files = append(m.Files, ManifestFile{Name: name, Class: class, Pieces: n, Size: count.n, SHA256: hex.EncodeToString(count.sum.Sum(nil))})
		return err
	}
	var classes []string
	for _, h := range r.c.Holders {
		classes = append(classes, h.Classes()...)
	}
	slices.Sort(classes)
	for _, class := range slices.Compact(classes) {
		err := add(class+".jsonl", class, func(w io.Writer) (n int, err error) {
			enc := json.NewEncoder(w)
			return n, r.each(ctx, s, class, func(p Piece) error { n++; return enc.Encode(p) })
		})
		if err != nil {
			return err
		}
		err = r.each(ctx, s, class, func(p Piece) error {
			for _, file := range p.Files {
				err := add(file.Name, class, func(w io.Writer) (int, error) {
					for octets, err := range file.Open(ctx) {
						if err != nil {
							return 0, err
						}
						if _, err := w.Write(octets); err != nil {
							return 0, err
						}
					}
					return 0, nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	document := func(name string, value any) error {
		return add(name, "", func(w io.Writer) (int, error) {
			enc := json.NewEncoder(w)
			enc.SetIndent("", "  ")
			return 0, enc.Encode(value)
		})
	}
	if r.c.Policy != nil {
		if err := document("policy.json", r.c.Policy()); err != nil {
			return err
		}
	}
	if err := document("manifest.json", m); err != nil {
		return err
	}
	return z.Close()
}

// each calls f for every piece of a class, whoever holds it.
func (r *Register) each(ctx context.Context, s Subject, class string, f func(Piece) error) error {
	for _, h := range r.c.Holders {
		if !slices.Contains(h.Classes(), class) {
			continue
		}
		for p, err := range h.Pieces(ctx, s, class) {
			if err == nil {
				err = f(p)
			}
			if err != nil {
				return fmt.Errorf("export %s: %w", class, err)
			}
		}
	}
	return nil
}

// Pieces yields everything that is kept about a person, class by class, for pages that show it.
func (r *Register) Pieces(ctx context.Context, person string, f func(class string, p Piece) error) error {
	accounts, err := r.c.People.Owned(ctx, person)
	if err != nil {
		return err
	}
	var classes []string
	for _, h := range r.c.Holders {
		classes = append(classes, h.Classes()...)
	}
	slices.Sort(classes)
	for _, class := range slices.Compact(classes) {
		if err := r.each(ctx, Subject{Person: person, Accounts: accounts}, class, func(p Piece) error { return f(class, p) }); err != nil {
			return err
		}
	}
	return nil
}

// counter counts and sums what goes through it.
type counter struct {
	to  io.Writer
	n   int64
	sum hash.Hash
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	c.n += int64(n)
	c.sum.Write(b[:n])
	return n, err
}

// chunks stores what is written to it in records of one size.
type chunks struct {
	ctx  context.Context
	r    *Register
	q    Request
	buf  []byte
	n    int
	size int64
	sum  hash.Hash
}

func chunkKey(id string, n int) string { return fmt.Sprintf("%s%s/%08d", archivePrefix, id, n) }

func (c *chunks) Write(b []byte) (int, error) {
	if c.size += int64(len(b)); c.size > MaxArchive {
		return 0, errTooLarge
	}
	c.sum.Write(b)
	for rest := b; len(rest) > 0; {
		n := min(chunk-len(c.buf), len(rest))
		c.buf, rest = append(c.buf, rest[:n]...), rest[n:]
		if len(c.buf) == chunk {
			if err := c.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(b), nil
}

// flush stores what was not yet.
func (c *chunks) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	key := chunkKey(c.q.ID, c.n)
	sealed, err := c.r.c.Vault.Seal(c.ctx, c.q.Person, key, c.buf)
	if err != nil {
		return err
	}
	b := new(state.Batch)
	b.PutTTL([]byte(key), sealed, c.r.c.Archive+workTime)
	c.n, c.buf = c.n+1, c.buf[:0]
	return c.r.c.Store.Commit(c.ctx, b)
}

// discard removes the archive of a request, if there is one.
func (r *Register) discard(ctx context.Context, id string) error {
	b := new(state.Batch)
	for e, err := range r.c.Store.Scan(ctx, []byte(archivePrefix+id+"/"), nil) {
		if err != nil {
			return err
		}
		if b.Delete(slices.Clone(e.Key)); len(b.Writes) == closeBatch {
			if err := r.c.Store.Commit(ctx, b); err != nil {
				return err
			}
			b.Reset()
		}
	}
	if len(b.Writes) == 0 {
		return nil
	}
	return r.c.Store.Commit(ctx, b)
}

// Archive is the archive of an export, from any place on, so that a download that broke off can go on (http.ServeContent). It
// is for one goroutine.
type Archive struct {
	Request Request
	ctx     context.Context
	r       *Register
	at      int64
	n       int // of the chunk in buf; -1: none
	buf     []byte
}

// Archive opens the archive of a person's export. ErrNotFound where there is none, for this person or any more.
func (r *Register) Archive(ctx context.Context, person, id string) (*Archive, error) {
	q, err := r.Get(ctx, person, id)
	if err == nil && (q.Kind != Export || q.State != Completed || !r.c.Now().Before(q.Expires)) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return &Archive{Request: q, ctx: ctx, r: r, n: -1}, nil
}

// Read implements io.Reader.
func (a *Archive) Read(b []byte) (int, error) {
	if a.at >= a.Request.Size {
		return 0, io.EOF
	}
	if n := int(a.at / chunk); n != a.n {
		key := chunkKey(a.Request.ID, n)
		sealed, err := a.r.c.Store.Get(a.ctx, []byte(key))
		if err == nil {
			a.buf, err = a.r.c.Vault.Open(a.ctx, a.Request.Person, key, sealed)
		}
		if err != nil {
			return 0, fmt.Errorf("read archive %s: %w", a.Request.ID, err)
		}
		a.n = n
	}
	from := int(a.at % chunk)
	if from >= len(a.buf) {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(b, a.buf[from:])
	a.at += int64(n)
	return n, nil
}

// Seek implements io.Seeker.
func (a *Archive) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += a.at
	case io.SeekEnd:
		offset += a.Request.Size
	}
	if offset < 0 {
		return 0, errors.New("before the archive's beginning")
	}
	a.at = offset
	return offset, nil
}
