package replay

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"sync"
)

// packedFrom is the least octets of a body that packing is tried on.
const packedFrom = 1 << 10

// packer makes bodies smaller for the store: an event stream of a model says the same names in every event, and takes a
// tenth of its size.
type packer struct{ writers sync.Pool } // *flate.Writer: one takes more than half a MiB

// pack returns the body deflated (RFC 1951), and false where that makes it no smaller.
func (p *packer) pack(body []byte) ([]byte, bool) {
	if len(body) < packedFrom {
		return nil, false
	}
	out := bytes.NewBuffer(make([]byte, 0, len(body)/4))
	w, ok := p.writers.Get().(*flate.Writer)
	if ok {
		w.Reset(out)
	} else {
		var err error
		if w, err = flate.NewWriter(out, flate.BestSpeed); err != nil {
			return nil, false
		}
	}
	defer p.writers.Put(w)
	if _, err := w.Write(body); err != nil || w.Close() != nil || out.Len() >= len(body) {
		return nil, false
	}
	return out.Bytes(), true
}

// unpack returns what was packed, at most MaxReply octets of it.
func unpack(b []byte) ([]byte, error) {
	r := flate.NewReader(bytes.NewReader(b))
	body, err := io.ReadAll(io.LimitReader(r, MaxReply+1))
	if err == nil && len(body) > MaxReply {
		err = errors.New("longer than any reply")
	}
	return body, err
}
