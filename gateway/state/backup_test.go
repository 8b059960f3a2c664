package state_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
)

func entries(list ...state.Entry) func(func(state.Entry, error) bool) {
	return func(yield func(state.Entry, error) bool) {
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// A backup leaves out what has expired when it is read, and keeps the rest of a time.
func TestBackupExpiry(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	now := time.Now()
	err := state.WriteBackup(t.Context(), &out, entries(
		state.Entry{Key: []byte("over"), Value: []byte("1"), Expires: now.Add(-time.Hour)},
		state.Entry{Key: []byte("soon"), Value: []byte("2"), Expires: now.Add(time.Hour)},
		state.Entry{Key: []byte("never"), Value: []byte("3")},
	))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]time.Duration{}
	err = state.ReadBackup(t.Context(), &out, func(b *state.Batch) error {
		for _, w := range b.Writes {
			got[string(w.Key)] = w.TTL
		}
		return nil
	})
	if err != nil || len(got) != 2 || got["never"] != 0 || got["soon"] < 59*time.Minute || got["soon"] > time.Hour {
		t.Errorf("%v, %v", got, err)
	}
}

// No input makes ReadBackup panic, allocate without bound, or take what is not whole for a backup.
func FuzzReadBackup(f *testing.F) {
	var out bytes.Buffer
	if err := state.WriteBackup(f.Context(), &out, entries(state.Entry{Key: []byte("k"), Value: []byte("v")})); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes())
	f.Add([]byte("postern-backup 1\n\x01\xff\xff\xff\xff\x0f"))
	f.Add([]byte("postern-backup 1\n\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var list []state.Entry
		err := state.ReadBackup(t.Context(), bytes.NewReader(data), func(b *state.Batch) error {
			if err := b.Check(); err != nil {
				t.Errorf("a batch beyond the limits: %v", err)
			}
			for _, w := range b.Writes {
				list = append(list, state.Entry{Key: w.Key, Value: w.Value})
			}
			return nil
		})
		if err != nil {
			if !errors.Is(err, state.ErrBackup) {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		if err := state.WriteBackup(t.Context(), &bytes.Buffer{}, entries(list...)); err != nil {
			t.Error(err)
		}
	})
}
