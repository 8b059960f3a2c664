package proxy

// How much of a body is read at once, in octets: little while little comes, which is what keeps a silent stream small, and much
// when there is much.
const (
	smallBuffer = 2 << 10
	largeBuffer = 32 << 10
)

// window is what a body passes through. It holds a small buffer until a read fills it, and again when reads have become small.
type window struct {
	f      *Forwarder
	buffer *[]byte
	large  bool // buffer is
	less   bool // and the last read would have fitted a small one
	more   bool // the last read filled it
}

// window is for a body of length octets, or -1.
func (f *Forwarder) window(length int64) window {
	return window{f: f, more: length > smallBuffer}
}

// room is the buffer for the next read. It is valid until the next call.
func (w *window) room() []byte {
	if w.buffer == nil || w.large && w.less || !w.large && w.more {
		large := w.more
		w.close()
		w.large = large
		if large {
			w.buffer = w.f.large.Get().(*[]byte)
		} else {
			w.buffer = w.f.small.Get().(*[]byte)
		}
	}
	return *w.buffer
}

// took says that a read brought n octets.
func (w *window) took(n int) {
	w.less, w.more = n < smallBuffer, n == len(*w.buffer)
}

// close gives the buffer back.
func (w *window) close() {
	switch {
	case w.buffer == nil:
	case w.large:
		w.f.large.Put(w.buffer)
	default:
		w.f.small.Put(w.buffer)
	}
	w.buffer = nil
}
