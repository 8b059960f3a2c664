package code

import (
	"context"

	"github.com/tetratelabs/wazero/experimental"
)

// WithMemory returns a context in which instances are made with at most limit octets of memory each. denied is set when one
// wants more.
func WithMemory(ctx context.Context, limit int64, denied *bool) context.Context {
	return experimental.WithMemoryAllocator(ctx, experimental.MemoryAllocatorFunc(func(_, _ uint64) experimental.LinearMemory {
		return &linear{limit: uint64(limit), denied: denied}
	}))
}

// linear is one instance's memory, capped. The engine's own limit holds for a whole runtime, this one for an instance.
type linear struct {
	buffer []byte
	limit  uint64
	denied *bool // set when the guest wanted more
}

var _ experimental.LinearMemory = (*linear)(nil)

// Reallocate grows the memory, or returns nil beyond the limit: memory.grow then gives -1, which guests take as out of
// memory. The first call is for what the module declares, which was checked before and must not be refused.
func (m *linear) Reallocate(size uint64) []byte {
	if size > m.limit && m.buffer != nil {
		*m.denied = true
		return nil
	}
	if size <= uint64(cap(m.buffer)) {
		m.buffer = m.buffer[:size]
		return m.buffer
	}
	// Growing copies everything, so some room is kept. It is virtual until it is touched.
	room := size
	if m.buffer != nil {
		room = min(size+size/4, m.limit)
	}
	next := make([]byte, size, room)
	copy(next, m.buffer)
	m.buffer = next
	return next
}

// Free drops the memory; the collector takes it when the last view is gone.
func (m *linear) Free() { m.buffer = nil }
