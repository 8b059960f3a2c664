package record

import (
	"context"
	"fmt"
	"iter"

	"github.com/postern-gateway/postern/gateway/state"
)

// Journal reads the entries that are in a store, as the ledger committed them.
type Journal struct{ Store state.Store }

// Since yields all entries from the sequence number seq on, in their order; those that were folded are left out. A fault
// ends it with a non-nil error as the last element.
func (j Journal) Since(ctx context.Context, seq uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range j.Store.Scan(ctx, []byte(EntryPrefix), EntryKey(seq)) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			at, ok := SequenceOf(e.Key[len(EntryPrefix):])
			entry, _, whole := DecodeEntry(at, e.Value)
			if !ok || !whole {
				yield(Entry{}, fmt.Errorf("entry %d of the ledger is damaged", at))
				return
			}
			if !yield(entry, nil) {
				return
			}
		}
	}
}
