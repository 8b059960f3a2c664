package notice

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/postern-gateway/postern/gateway/privacy"
	"github.com/postern-gateway/postern/gateway/state"
)

// ErrNotFound is for a version that was never published.
var ErrNotFound = errors.New("no such version of the policy")

// ChangedError says that the configuration would say something else under a version that people may have accepted.
type ChangedError struct {
	Version   string
	Published time.Time
	Place     string // of the privacy block: file:line:column
}

// Error makes a ChangedError an error.
func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s: Changed policy: version %q was published on %s and said something else. Give what it says now a new version, which people are asked to accept, or take the change back; postern privacy report shows what is done with which data",
		e.Place, e.Version, e.Published.Format(time.DateOnly))
}

// maxEditions bounds how many versions are kept: far more than anybody publishes.
const maxEditions = 1000

const prefix = "privacy/" // + version

// Store is where editions are kept; state.Store is one.
type Store interface {
	Get(ctx context.Context, key []byte) ([]byte, error)
	Scan(ctx context.Context, prefix, from []byte) iter.Seq2[state.Entry, error]
	Commit(ctx context.Context, batch *state.Batch) error
}

// Archive keeps every version of the policy that the program ran with. It is safe for concurrent use, but for Keep, which
// one goroutine calls at a time.
type Archive struct {
	Store Store
	Now   func() time.Time // nil: time.Now
}

func (a *Archive) now() time.Time {
	if a.Now == nil {
		return time.Now()
	}
	return a.Now()
}

// Keep publishes what a configuration says: it is kept the first time the program runs with that version. Later the same
// version must say the same, else there is a *ChangedError and nothing is done. Without a privacy block nothing is done.
func (a *Archive) Keep(ctx context.Context, p *privacy.Policy) error {
	e, err := Make(p)
	if errors.Is(err, ErrUnpublished) {
		return nil
	}
	if err != nil {
		return err
	}
	old, err := a.Find(ctx, e.Version)
	switch {
	case err == nil && old.Digest == e.Digest:
		return nil
	case err == nil:
		return &ChangedError{Version: e.Version, Published: old.Published, Place: e.place}
	case !errors.Is(err, ErrNotFound):
		return err
	}
	list, err := a.List(ctx)
	if err != nil {
		return err
	}
	if len(list) >= maxEditions {
		return fmt.Errorf("publish policy version %s: there are %d versions already, the most that are kept", e.Version, len(list))
	}
	e.Published = a.now().UTC().Truncate(time.Second)
	value, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("publish policy version %s: %w", e.Version, err)
	}
	var b state.Batch
	b.Put([]byte(prefix+e.Version), value)
	if err := a.Store.Commit(ctx, &b); err != nil {
		return fmt.Errorf("publish policy version %s: %w", e.Version, err)
	}
	return nil
}

// Find returns one version, or ErrNotFound.
func (a *Archive) Find(ctx context.Context, version string) (*Edition, error) {
	if len(version) > state.MaxKey-len(prefix) {
		return nil, ErrNotFound
	}
	value, err := a.Store.Get(ctx, []byte(prefix+version))
	if errors.Is(err, state.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read policy version %q: %w", version, err)
	}
	return decode(value, version)
}

func decode(value []byte, version string) (*Edition, error) {
	e := new(Edition)
	if err := json.Unmarshal(value, e); err != nil || e.Version != version {
		return nil, fmt.Errorf("the record of policy version %q is damaged", version)
	}
	return e, nil
}

// List returns all versions, the one that takes effect last first.
func (a *Archive) List(ctx context.Context) ([]*Edition, error) {
	var list []*Edition
	for entry, err := range a.Store.Scan(ctx, []byte(prefix), nil) {
		if err != nil {
			return nil, fmt.Errorf("read policies: %w", err)
		}
		e, err := decode(entry.Value, string(entry.Key[len(prefix):]))
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *Edition) int {
		return cmp.Or(b.Effective.Compare(a.Effective), b.Published.Compare(a.Published), cmp.Compare(b.Version, a.Version))
	})
	return list, nil
}

// InForce is the version in effect at a moment, of a list as List gives it; before the first takes effect, that first one.
// nil: the list is empty.
func InForce(list []*Edition, now time.Time) *Edition {
	for _, e := range list {
		if !e.Effective.After(now) {
			return e
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[len(list)-1]
}

// StandingOf says how a version of a list stands at a moment. Of two that take effect on the same day the one published later counts.
func StandingOf(list []*Edition, version string, now time.Time) Standing {
	force := InForce(list, now)
	for i, e := range list {
		if e.Version != version {
			continue
		}
		switch {
		case e.Effective.After(now):
			return Standing{State: Announced}
		case e == force:
			return Standing{State: InEffect}
		}
		return Standing{State: Superseded, Until: list[i-1].Effective}
	}
	return Standing{}
}

// Acceptance is that a person accepted a version of the policy. The zero value is that they accepted none.
type Acceptance struct {
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
}

// Ask says which version a person is to be asked to accept, of a list as List gives it; ask is false when what they
// accepted still stands: it is the version in force, or one announced to come after it.
func (a Acceptance) Ask(list []*Edition, now time.Time) (version string, ask bool) {
	force := InForce(list, now)
	if force == nil {
		return "", false
	}
	for _, e := range list {
		if e.Version == a.Version {
			return force.Version, false
		}
		if e == force {
			break // what was accepted is older, or not known
		}
	}
	return force.Version, true
}
