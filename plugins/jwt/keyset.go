package main

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
)

// fetchName is what the one fetch is called.
const fetchName = "jwks"

// stampSize is the size of a stamp in the plugin's state.
const stampSize = 24

// keySet is the keys that an issuer publishes (RFC 7517 section 5). Text and stamp are in the plugin's state, so that all
// instances share one look at the issuer; each instance keeps the keys that it has read from the text.
type keySet struct {
	url                   string
	algorithms            []*algorithm
	refresh, retry, stale int64 // nanoseconds

	keys    []*key
	version int64 // the stamp's fetched time when keys was read
	old     [stampSize]byte
}

// stamp says when the issuer was asked, in nanoseconds since 1970; 0: never.
type stamp struct {
	fetched int64 // with success
	asked   int64 // to refresh keys that are still good
	failed  int64 // in vain; 0 again after a success
}

func newKeySet(v postern.Value) (*keySet, error) {
	s := &keySet{
		url: v.Member("url").Text(), refresh: v.Member("refresh").Int(), retry: v.Member("retry").Int(), stale: v.Member("stale").Int(),
	}
	if len(s.url) > abi.MaxKey-8 {
		return nil, errors.New("jwks: the url is too long")
	}
	for _, name := range texts(v.Member("algorithms")) {
		a := algorithmOf(name)
		if a.kind == "oct" {
			return nil, errors.New("jwks: " + name + " needs a secret, which a key set can not hold")
		}
		s.algorithms = append(s.algorithms, a)
	}
	switch {
	case len(s.algorithms) == 0:
		return nil, errors.New("jwks: algorithms is empty")
	case s.refresh < int64(time.Minute):
		return nil, errors.New("jwks: refresh is at least 1m")
	case s.retry < int64(time.Second) || s.retry > s.refresh:
		return nil, errors.New("jwks: retry is at least 1s, and at most refresh")
	case s.stale < 0:
		return nil, errors.New("jwks: stale is a duration")
	}
	return s, nil
}

// stateKey is where the set's text or stamp is. Stages with the same url share them.
func (s *keySet) stateKey(what string) []byte { return append([]byte(what), s.url...) }

// ask has the key set fetched. Requests that need it at the same time share one fetch.
func (s *keySet) ask(r *postern.Result) {
	r.Fetch(fetchName, postern.Fetch{
		URL: s.url, Headers: []postern.Field{{Name: "accept", Value: "application/jwk-set+json, application/json"}},
		Cache: time.Duration(s.retry), Max: abi.MaxValue,
	})
	r.Await()
}

// ready gets the keys that a token may be signed with; wait says that they have to be asked for first. The error is for
// operators: there are no keys, which is not the caller's fault.
func (s *keySet) ready(e *postern.Event, t *token) (wait bool, err error) {
	now := e.Time()
	at, err := s.stamp(e.Host)
	if err != nil {
		return false, err
	}
	if e.Kind == abi.EventFetched {
		if at, err = s.take(e, at); err != nil {
			return false, err
		}
	} else if s.wants(e, t, at, now) {
		return true, nil
	}
	if err := s.load(e.Host, at); err != nil {
		return false, err
	}
	if at.fetched == 0 || now-at.fetched >= s.refresh+s.stale {
		s.keys, s.version = nil, 0
		return false, errors.New("there are no keys of " + s.url + ": it could not be fetched, and will be tried again")
	}
	return false, nil
}

// wants decides whether the issuer has to be asked before the token can be judged.
func (s *keySet) wants(e *postern.Event, t *token, at stamp, now int64) bool {
	age := now - at.fetched
	switch {
	case now-at.failed < s.retry:
		return false // it failed just now
	case at.fetched == 0 || age >= s.refresh+s.stale:
		return true
	case s.load(e.Host, at) != nil:
		return true
	case !has(s.keys, t):
		return age >= s.retry // a new key, or none at all
	case age < s.refresh || now-at.asked < s.retry:
		return false
	}
	// The keys are good and have to be looked after: one request does it, the others go on.
	next := at
	next.asked = now
	return s.put(e.Host, next) == nil
}

// take keeps what the issuer answered, or that it did not.
func (s *keySet) take(e *postern.Event, at stamp) (stamp, error) {
	why, next := "", at
	a, ok := e.Answer(fetchName)
	switch {
	case !ok:
		return at, errors.New("an event without the answer that was asked for")
	case a.Error != "":
		why = a.Error
	case a.Status != 200:
		why = "it answered with status " + strconv.Itoa(a.Status)
	}
	if why == "" {
		keys, bad := s.read(a.Body)
		if len(keys) == 0 {
			why = "it has no key for " + s.names() + bad
		} else if bad != "" {
			e.Host.Debug("key set " + s.url + bad)
		}
	}
	if why == "" {
		if err := e.Host.Put(s.stateKey("k"), a.Body, 0); err != nil {
			return at, err
		}
		next = stamp{fetched: e.Time()}
	} else {
		next.failed = e.Time()
	}
	switch err := s.put(e.Host, next); {
	case err == nil && why != "":
		e.Host.Warn("key set " + s.url + " could not be fetched: " + why)
	case errors.Is(err, postern.ErrConflict): // another request was first
		return s.stamp(e.Host)
	case err != nil:
		return at, err
	}
	return next, nil
}

func (s *keySet) names() string {
	var names []string
	for _, a := range s.algorithms {
		names = append(names, a.name)
	}
	return strings.Join(names, ", ")
}

// stamp reads the set's stamp, and keeps it for put.
func (s *keySet) stamp(h *postern.Host) (stamp, error) {
	clear(s.old[:])
	b, err := h.Get(s.stateKey("s"))
	if err != nil && !errors.Is(err, postern.ErrNotFound) {
		return stamp{}, err
	}
	if len(b) == stampSize {
		copy(s.old[:], b)
	}
	word := func(at int) int64 { return int64(binary.LittleEndian.Uint64(s.old[at:])) }
	return stamp{word(0), word(8), word(16)}, nil
}

// put writes a stamp in the place of the one that was read: ErrConflict when another instance was first.
func (s *keySet) put(h *postern.Host, next stamp) error {
	var b [stampSize]byte
	for i, v := range [...]int64{next.fetched, next.asked, next.failed} {
		binary.LittleEndian.PutUint64(b[8*i:], uint64(v))
	}
	old := s.old[:]
	if s.old == [stampSize]byte{} {
		old = nil
	}
	if err := h.CAS(s.stateKey("s"), old, b[:], 0); err != nil {
		return err
	}
	s.old = b
	return nil
}

// load reads the keys out of the text in the state, unless that was done before.
func (s *keySet) load(h *postern.Host, at stamp) error {
	if at.fetched == 0 || at.fetched == s.version {
		return nil
	}
	text, err := h.Get(s.stateKey("k"))
	if err != nil {
		return err
	}
	s.keys, _ = s.read(text)
	s.version = at.fetched
	return nil
}

// read reads the keys of a set that are of use here; bad says what is wrong with the last of the others.
func (s *keySet) read(text []byte) (keys []*key, bad string) {
	var set, o object
	if !set.read(text) || !set.get("keys").isList() {
		return nil, ": it is no key set"
	}
	for v := range set.get("keys").each {
		if len(keys) == maxKeys {
			return keys, ": it has more than 64 keys"
		}
		if !v.isObject() || !o.read(v) {
			bad = ": a key is no object"
			continue
		}
		k, err := fromJWK(nil, s.algorithms, &o)
		if err == nil && !s.allows(k.alg) {
			err = errors.New("the key is for " + k.alg.name)
		}
		if err != nil {
			bad = ": " + err.Error()
			continue
		}
		k.id = string(o.get("kid").text(nil))
		keys = append(keys, k)
	}
	return keys, bad
}

// signs reports whether the set may have a key for an algorithm: for others nobody is asked.
func (s *keySet) signs(algorithm []byte) bool {
	for _, a := range s.algorithms {
		if a.name == string(algorithm) {
			return true
		}
	}
	return false
}

func (s *keySet) allows(a *algorithm) bool {
	for _, other := range s.algorithms {
		if other == a {
			return true
		}
	}
	return false
}
