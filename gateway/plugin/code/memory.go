package code

import (
	"context"
	"runtime"

	"github.com/tetratelabs/wazero/experimental"
)

// WithMemory returns a context in which instances are made with at most limit octets of memory each. denied is set when one
// wants more.
func WithMemory(ctx context.Context, limit int64, denied *bool) context.Context {
	return experimental.WithMemoryAllocator(ctx, experimental.MemoryAllocatorFunc(func(_, _ uint64) experimental.LinearMemory {
		return &linear{limit: uint64(limit), denied: denied}
	}))
}

// linear is one instance's memory, capped. The engine's own limit holds for a whole runtime, this one for an instance. Where
// the system can (see reserve), the memory is addresses of which only what is touched takes room: it grows without being
// copied, the garbage collector has nothing to do with it, and it goes back at once. Nothing may look at it then.
type linear struct {
	buffer   []byte
	reserved bool // by the system, not by make
	limit    uint64
	denied   *bool // set when the guest wanted more
}

var _ experimental.LinearMemory = (*linear)(nil)

// Reallocate grows the memory, or returns nil beyond the limit: memory.grow then gives -1, which guests take as out of
// memory. The first call is for what the module declares, which was checked before and must not be refused.
func (m *linear) Reallocate(size uint64) []byte {
	if size > m.limit && m.buffer != nil {
		*m.denied = true
		return nil
	}
	if m.buffer == nil {
		if all := reserve(max(size, m.limit)); all != nil {
			m.buffer, m.reserved = all[:0], true
			// The engine gives an instance back that could not be started as well, or drops it.
			runtime.SetFinalizer(m, (*linear).Free)
		}
	}
	if size <= uint64(cap(m.buffer)) {
		m.buffer = m.buffer[:size]
		return m.buffer
	}
	// Growing copies everything, so some room is kept.
	room := size
	if m.buffer != nil {
		room = min(size+size/4, m.limit)
	}
	next := make([]byte, size, room)
	copy(next, m.buffer)
	m.buffer = next
	return next
}

// Free gives the memory back. Later calls do nothing.
func (m *linear) Free() {
	if m.reserved {
		release(m.buffer[:cap(m.buffer)])
		m.reserved = false
		runtime.SetFinalizer(m, nil)
	}
	m.buffer = nil
}
