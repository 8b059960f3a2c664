// Package audit is the log of who did what: operators, people, and the gateway itself. Its main type is Log, which only ever
// grows at its end.
//
// Each entry carries the hash of the one before it, and a head, sealed with a key that is not in the store, carries the
// number and the hash of the last one. So whoever can write to the store, but has neither the key nor the running
// process, can not change, remove, insert or reorder entries, nor cut off the last ones, without Verify finding it. What the chain
// does not prove: that what was never given to it did not happen; anything against somebody who has the key, too, and
// could write it all anew; and that the store as a whole was not put back to an earlier moment, or emptied, head and
// all, while no gateway had it open. For these there is the Mark: noted elsewhere, it tells later whether the log still
// holds that entry.
//
// An action is recorded in two steps: Begin puts it on disk before it is done, End makes it an entry. What was begun when
// the process ended becomes an entry whose outcome is unknown.
package audit

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
)

// Errors of a log, beside ErrEntry and those of the store.
var (
	ErrClosed = errors.New("audit log is closed")
	ErrEnded  = errors.New("the action has ended already")
	ErrMark   = errors.New("not a mark: it is the number of an entry, a colon and 64 hexadecimal digits")
)

// Where it stands in the store. A scan of everyone meets what was begun, then the head, then the entries.
const (
	everyone = "audit/"
	begunAt  = "audit/begun/"
	headAt   = "audit/chain"
	entryAt  = "audit/entry/"
)

// Config configures a Log. Store and Key are required.
type Config struct {
	Store  state.Store   // must stay open until Close returned
	Key    []byte        // seals the head; at least 32 octets, kept apart from Store
	Retain time.Duration // how long entries are kept; 0: for ever
	Log    *slog.Logger  // default: slog.Default. No entry is ever logged
}

// Log is the audit log in a store. It is safe for concurrent use, and the only one that writes there.
type Log struct {
	store  state.Store
	key    []byte
	retain time.Duration
	log    *slog.Logger

	queue chan *request
	done  chan struct{} // closed when the writer has ended

	// What the writer alone uses.
	unsure bool   // it is not known whether the last commit came through
	breach string // why the chain has to begin anew, until an entry says so

	mu   sync.Mutex
	head head // what is in the store, as far as this process knows

	tallying sync.Mutex
	tallies  map[string]*tally // by action and subject

	closing sync.Mutex
	closed  bool
	users   sync.WaitGroup // calls under way
}

// Open opens the log in c.Store. Damage does not keep it from opening: it is logged, and the next entry says of it.
func Open(ctx context.Context, c Config) (*Log, error) {
	l := &Log{store: c.Store, key: c.Key, retain: c.Retain, log: c.Log, queue: make(chan *request, group), done: make(chan struct{}), tallies: map[string]*tally{}}
	switch {
	case c.Store == nil || len(c.Key) < sha256.Size:
		return nil, errors.New("open audit log: no store, or a key that is too short")
	case c.Retain < 0:
		return nil, errors.New("open audit log: it can not be kept for less than no time")
	case l.log == nil:
		l.log = slog.Default()
	}
	if err := l.load(ctx); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	// A full disk does not keep the gateway from starting: what can not be written now is tried again with the next entry, or
	// by the next Open.
	if err := l.recover(ctx); err != nil {
		l.log.ErrorContext(ctx, "audit log: what the last run left can not be recorded now", "error", err)
	}
	go l.writing()
	return l, nil
}

// Close waits for calls under way. Later calls give ErrClosed.
func (l *Log) Close() error {
	l.closing.Lock()
	if l.closed {
		l.closing.Unlock()
		return ErrClosed
	}
	l.closed = true
	l.closing.Unlock()
	l.users.Wait()
	close(l.queue)
	<-l.done
	return nil
}

// enter begins a call; leave ends it.
func (l *Log) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.closing.Lock()
	defer l.closing.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.users.Add(1)
	return nil
}

func (l *Log) leave() { l.users.Done() }

// Append records what has happened and returns its mark when that is durable. For what is still to be done there is
// Begin.
func (l *Log) Append(ctx context.Context, e Entry) (Mark, error) {
	if err := e.check(); err != nil {
		return Mark{}, err
	}
	r := &request{entry: &e}
	err := l.submit(ctx, r)
	return Mark{Seq: e.Seq, Sum: e.Sum}, err
}

// Act is an action under way, for one goroutine.
type Act struct {
	// Entry is what End will record. Whoever began the action completes it meanwhile, Outcome in any case.
	Entry Entry

	log   *Log
	begun []byte // its key
	ended bool
}

// Begin notes durably that an action is about to be done, by whom and to what. After an error it must not be done. The
// entry needs no outcome yet.
func (l *Log) Begin(ctx context.Context, e Entry) (*Act, error) {
	e.Outcome = Unknown
	if err := e.check(); err != nil {
		return nil, err
	}
	note := e
	var id [8]byte
	rand.Read(id[:]) // never fails
	a := &Act{Entry: e, log: l, begun: hex.AppendEncode([]byte(begunAt), id[:])}
	a.Entry.Outcome = ""
	if err := l.submit(ctx, &request{key: a.begun, note: note.seal()}); err != nil {
		return nil, err
	}
	return a, nil
}

// endTime bounds how long End waits, whatever the caller's context says: what was done is to be recorded also when whoever
// asked for it has gone.
const endTime = 10 * time.Second

// End records what became of the action. After an error the entry is not there, and is made by the next Open, with the
// outcome unknown.
func (a *Act) End(ctx context.Context) error {
	if a.ended {
		return ErrEnded
	}
	e := a.Entry
	if err := e.check(); err != nil {
		return err
	}
	a.ended = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	return a.log.submit(ctx, &request{entry: &e, key: a.begun})
}

// Fingerprint stands for a secret, such as a token, in an entry: it tells two apart, and without the log's key nobody can
// check a guess with it.
func (l *Log) Fingerprint(secret string) string {
	sum := l.mac("postern audit fingerprint 1\n", []byte(secret))
	return hex.EncodeToString(sum[:8])
}

func (l *Log) mac(domain string, b []byte) [sha256.Size]byte {
	h := hmac.New(sha256.New, l.key)
	h.Write([]byte(domain))
	h.Write(b)
	return [sha256.Size]byte(h.Sum(nil))
}

// Mark is the number and the hash of an entry: all that need be noted elsewhere to tell later that the log up to it is the
// same.
type Mark struct {
	Seq uint64
	Sum [sha256.Size]byte
}

// String is the mark as ParseMark reads it, empty for that of an empty log.
func (m Mark) String() string {
	if m.Seq == 0 {
		return ""
	}
	return strconv.FormatUint(m.Seq, 10) + ":" + hex.EncodeToString(m.Sum[:])
}

// ParseMark reads a mark, or gives ErrMark. An empty text is the mark of an empty log.
func ParseMark(text string) (m Mark, err error) {
	if text == "" {
		return m, nil
	}
	seq, sum, _ := strings.Cut(text, ":")
	m.Seq, err = strconv.ParseUint(seq, 10, 64)
	b, hexErr := hex.DecodeString(sum)
	if err != nil || hexErr != nil || len(b) != sha256.Size || m.Seq == 0 {
		return Mark{}, ErrMark
	}
	copy(m.Sum[:], b)
	return m, nil
}

// Head is the mark of the last entry, and the zero Mark before the first.
func (l *Log) Head() Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head.last
}

// head is what the log knows of itself: its last entry, and the last one that is not kept any more.
type head struct {
	last, floor Mark
	time        time.Time // of the last entry
}

const (
	headForm   = 1
	headSize   = 1 + 2*(8+sha256.Size) + 8 + sha256.Size
	headDomain = "postern audit head 1\n"
)

// encode returns the head, sealed.
func (l *Log) encode(h head) []byte {
	b := append(make([]byte, 0, headSize), headForm)
	for _, m := range []Mark{h.last, h.floor} {
		b = append(binary.BigEndian.AppendUint64(b, m.Seq), m.Sum[:]...)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(h.time.UnixMilli()))
	sum := l.mac(headDomain, b)
	return append(b, sum[:]...)
}

// decode returns the head that is sealed in b, if it is.
func (l *Log) decode(b []byte) (h head, ok bool) {
	if len(b) != headSize || b[0] != headForm {
		return h, false
	}
	sum := l.mac(headDomain, b[:headSize-sha256.Size])
	if !hmac.Equal(sum[:], b[headSize-sha256.Size:]) {
		return h, false
	}
	at := 1
	for _, m := range []*Mark{&h.last, &h.floor} {
		m.Seq, m.Sum = binary.BigEndian.Uint64(b[at:]), [sha256.Size]byte(b[at+8:])
		at += 8 + sha256.Size
	}
	h.time = time.UnixMilli(int64(binary.BigEndian.Uint64(b[at:]))).UTC()
	return h, true
}

// keyOf is where an entry stands.
func keyOf(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte(entryAt), seq) }

// Reasons of the entry that says that the chain was found broken.
const (
	headMissing = "head_missing" // there are entries, and no head
	headForged  = "head_forged"  // it is not sealed with this key
	tailCut     = "tail_cut"     // the last entry is not there, or is another
	tailGrown   = "tail_grown"   // there are entries behind the last
)

// reach is how far behind the last entry another may stand that counts; no log has an entry beyond maxSeq.
const (
	reach  = 1 << 20
	maxSeq = 1 << 62
)

// load reads the head and compares it with the end of the log. What does not agree is noted in breach.
func (l *Log) load(ctx context.Context) error {
	b, err := l.store.Get(ctx, []byte(headAt))
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	h, sealed := l.decode(b)
	breach := ""
	if !sealed {
		// All that can be known is what is there.
		if breach = headForged; b == nil {
			breach = headMissing
		}
		h = head{}
	}
	some, last := false, false
	for rec, err := range l.store.Scan(ctx, []byte(entryAt), keyOf(max(h.last.Seq, 1))) {
		if err != nil {
			return err
		}
		e, whole, ok := parse(rec.Value)
		// The next entry goes behind all that are there, as long as a made-up number does not take it out of reach.
		seq, numbered := numberOf(rec.Key)
		switch {
		case !numbered || seq == 0 || seq > maxSeq || (sealed || some) && seq-h.last.Seq > reach:
			continue
		case sealed && seq == h.last.Seq:
			last = ok && whole && e.Seq == seq && e.Sum == h.last.Sum
		case sealed:
			breach, h.last.Seq = tailGrown, seq
		default:
			if !some {
				h.floor = Mark{Seq: seq - 1, Sum: e.prev}
			}
			h.last, h.time = Mark{Seq: seq, Sum: e.Sum}, e.Time
		}
		some = true
	}
	switch {
	case sealed && !last && h.last.Seq > 0:
		breach = cmp.Or(breach, tailCut)
	case !sealed && !some && b == nil:
		breach = "" // there is nothing yet
	}
	if breach != "" && breach != l.breach {
		l.log.ErrorContext(ctx, "audit log: the chain is broken; postern audit verify shows where", "code", breach)
	}
	l.mu.Lock()
	l.head = h
	l.mu.Unlock()
	l.breach, l.unsure = breach, false
	return nil
}

// numberOf is the number of the entry that belongs at a key.
func numberOf(key []byte) (uint64, bool) {
	rest, ok := bytes.CutPrefix(key, []byte(entryAt))
	if !ok || len(rest) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(rest), true
}

// recover makes entries of what was under way when the last run ended, and says of a broken chain.
func (l *Log) recover(ctx context.Context) error {
	var left []*request
	for rec, err := range l.store.Scan(ctx, []byte(begunAt), nil) {
		if err != nil {
			return err
		}
		r := &request{key: bytes.Clone(rec.Key)}
		if e, whole, ok := parse(rec.Value); ok && whole {
			r.entry = &e
		} else {
			r.entry = &Entry{Actor: "unknown", Action: "audit.recover", Subject: "unknown", Outcome: Unknown, Reason: "damaged"}
		}
		if left = append(left, r); len(left) == group {
			break // the next Open goes on
		}
	}
	if len(left) == 0 && l.breach == "" {
		return nil
	}
	return l.commit(left)
}
