// Package rights is what people may ask about their data: a copy of it, its deletion, its correction, and that it is not
// used for a while. Its main type is Register, which keeps the requests, carries them out, and signs what became of them.
//
// A request is open as pending or in progress, and over as completed, refused or cancelled. What carries it out is made so
// that a crash anywhere is made good by doing it again.
package rights

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/postern-gateway/postern/gateway/audit"
	"github.com/postern-gateway/postern/gateway/mail"
	"github.com/postern-gateway/postern/gateway/state"
	"github.com/postern-gateway/postern/gateway/vault"
)

// Errors of a Register, beside those of the store and the vault.
var (
	ErrNotFound = errors.New("no such request")
	ErrNobody   = errors.New("there is no such person")
	ErrBlocked  = errors.New("an account with other members would be without an owner")
	ErrOpen     = errors.New("there is an open request of this kind already")
	ErrOver     = errors.New("the request is over, or has gone too far for that")
	ErrInvalid  = errors.New("not a request")
	ErrTooMany  = errors.New("too many requests are kept of this person")
	ErrClosed   = errors.New("the register of requests is closed")
)

// Bounds.
const (
	MaxText     = 4000 // characters of what should be corrected
	MaxReason   = 500  // characters of why a request is refused
	MaxRequests = 200  // kept of one person
	MaxList     = 500  // of one page for operators
)

// Path is the page, below the public URL, on which people see their requests; mails lead there.
const Path = "/privacy/requests"

// Kind is what is asked for.
type Kind string

// The kinds.
const (
	Export      Kind = "export"      // a copy of everything, as an archive
	Deletion    Kind = "deletion"    // after a waiting time in which it can be cancelled
	Correction  Kind = "correction"  // of what people can not correct themselves; an operator does it
	Restriction Kind = "restriction" // the keys of what they own are refused and nothing is used, but kept, until it is cancelled
)

// State is how far a request has come.
type State string

// The states.
const (
	Pending    State = "pending"
	InProgress State = "in_progress" // a restriction: it is in force
	Completed  State = "completed"
	Refused    State = "refused"
	Cancelled  State = "cancelled"
)

// Open reports whether something is still to come.
func (s State) Open() bool { return s == Pending || s == InProgress }

// Request is one request.
type Request struct {
	ID      string    `json:"id"`               // "req_" and 16 letters and digits, random
	Person  string    `json:"person,omitempty"` // empty once their data are deleted
	Kind    Kind      `json:"kind"`
	State   State     `json:"state"`
	Made    time.Time `json:"made"`
	Changed time.Time `json:"changed"`
	Due     time.Time `json:"due,omitzero"`      // a deletion: not before then
	Reason  string    `json:"reason,omitempty"`  // of a refusal
	Outside string    `json:"outside,omitempty"` // what it is called by whoever passed it on; empty once the person's data are deleted
	Text    string    `json:"text,omitempty"`    // a correction: what should be corrected, while it is open

	// Of a completed export alone.
	Size    int64     `json:"size,omitempty"`   // octets of the archive
	Digest  string    `json:"sha256,omitempty"` // its SHA-256, hexadecimal
	Expires time.Time `json:"expires,omitzero"` // it is removed then

	Accounts []string `json:"accounts,omitempty"` // a restriction: those it disabled
}

// record is a request as it is stored.
type record struct {
	Request        // without what is sealed
	Sealed  []byte `json:"sealed,omitempty"` // private, under the person's key
}

// private is what somebody wrote.
type private struct {
	Text, Outside, Reason string
}

// Subject is whose data it is about.
type Subject struct {
	Person   string
	Accounts []string // that they own, alone or with others
}

// Contact is how to write to a person.
type Contact struct{ Email, Language string }

// People is who asks. Errors for who is not there are ErrNobody.
type People interface {
	Contact(ctx context.Context, person string) (Contact, error)
	Owned(ctx context.Context, person string) (accounts []string, err error)
	// Remove destroys everything that is kept about a person and about the accounts nobody is left in, or gives
	// ErrBlocked and has changed nothing. After any other error it is called again, and ends what it had begun. It gives
	// ErrNobody once there is nothing left to do.
	Remove(ctx context.Context, person string) error
	// Disable refuses an account's keys and reports whether they were taken before. Enable takes them again.
	Disable(ctx context.Context, account string) (changed bool, err error)
	Enable(ctx context.Context, account string) error
}

// Holder keeps something about people, or about the accounts that they own.
type Holder interface {
	Classes() []string // data classes of what it keeps
	// Pieces yields what is kept of one class; an error ends it.
	Pieces(ctx context.Context, s Subject, class string) iter.Seq2[Piece, error]
	// Sweep removes what is older than it may be kept, and counts what went by what it was.
	Sweep(ctx context.Context) (map[string]int, error)
}

// Piece is one thing that is kept.
type Piece struct {
	Kind  string `json:"kind"`
	ID    string `json:"id"`
	Data  any    `json:"data"` // written as JSON
	Files []File `json:"-"`
}

// File is what belongs to a piece and is no JSON.
type File struct {
	Name string // in the archive: lower-case letters, digits and -_./ alone
	Open func(ctx context.Context) iter.Seq2[[]byte, error]
}

// Vault seals what is stored under a person's key.
type Vault interface {
	Seal(ctx context.Context, owner, name string, plain []byte) ([]byte, error)
	Open(ctx context.Context, owner, name string, sealed []byte) ([]byte, error)
	MAC(ctx context.Context, owner, text string) ([sha256.Size]byte, error)
}

// Config configures a Register. Store, Vault, People and Mail are required.
type Config struct {
	Store   state.Store
	Vault   Vault
	People  People
	Mail    *mail.Office
	Holders []Holder
	Policy  func() any       // what is kept why and for how long, for archives; written as JSON. nil: nothing
	Audit   *audit.Log       // nil: nobody is told
	Service string           // who signs receipts: a name for people
	Wait    time.Duration    // before a deletion; 0: none
	Archive time.Duration    // how long the archive of an export is kept, default 7 days
	Keep    time.Duration    // how long a request is kept when it is over, default 3 years
	Sweep   time.Duration    // between sweeps, default 1h
	Log     *slog.Logger     // default: slog.Default
	Now     func() time.Time // default time.Now
}

// The records.
const (
	requestPrefix = "rights/r/" // + id
	personPrefix  = "rights/p/" // + person + / + id
	openPrefix    = "rights/o/" // + id, while it is open
	outsidePrefix = "rights/e/" // + HMAC of what a request is called elsewhere; the id
	archivePrefix = "rights/a/" // + id + / + number, 8 digits
	signingKey    = "rights/key"
	sweptKey      = "rights/swept"
)

// Register is the requests of a store. It is safe for concurrent use.
type Register struct {
	c      Config
	signer ed25519.PrivateKey

	change sync.Mutex // held by whoever changes a request, from the check to the store

	working sync.Mutex // held by whoever carries requests out

	ctx    context.Context // of the work; ends with Close
	cancel context.CancelFunc
	wake   chan struct{} // buffered: there is something to do
	work   sync.WaitGroup
}

// New returns the register of what is in c.Store. Nothing is carried out before Start.
func New(ctx context.Context, c Config) (*Register, error) {
	c.Archive, c.Keep, c.Sweep = cmp.Or(c.Archive, 7*24*time.Hour), cmp.Or(c.Keep, 3*365*24*time.Hour), cmp.Or(c.Sweep, time.Hour)
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	r := &Register{c: c, wake: make(chan struct{}, 1)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if err := r.loadKey(ctx); err != nil {
		return nil, fmt.Errorf("open register of requests: %w", err)
	}
	return r, nil
}

// Start begins to carry requests out, in the background, until Close.
func (r *Register) Start() { r.work.Go(r.run) }

// Close ends what is under way; the next run goes on with it. Later calls give ErrClosed.
func (r *Register) Close() error {
	if r.ctx.Err() != nil {
		return ErrClosed
	}
	r.cancel()
	r.work.Wait()
	return nil
}

// now is to the second, as it is stored.
func (r *Register) now() time.Time { return r.c.Now().UTC().Truncate(time.Second) }

// Ask makes a request for a person. text is what should be corrected, and empty for other kinds; outside is what the request
// is called elsewhere, at most 100 octets, or empty. ErrOpen, with the request, where one of the kind is open, or where there
// is one that is called so.
func (r *Register) Ask(ctx context.Context, person string, kind Kind, text, outside string) (q Request, err error) {
	defer func() { r.tell(ctx, person, "rights."+string(kind), cmp.Or(q.ID, person), err) }()
	if !slices.Contains([]Kind{Export, Deletion, Correction, Restriction}, kind) {
		return q, fmt.Errorf("%w: kind", ErrInvalid)
	}
	if n := utf8.RuneCountInString(text); n > MaxText || !utf8.ValidString(text) || (kind == Correction) != (strings.TrimSpace(text) != "") {
		return q, fmt.Errorf("%w: a correction, and nothing else, has a text, of at most %d characters", ErrInvalid, MaxText)
	}
	if len(outside) > 100 {
		return q, fmt.Errorf("%w: id", ErrInvalid)
	}
	if err := r.ctx.Err(); err != nil {
		return q, ErrClosed
	}
	r.change.Lock()
	defer r.change.Unlock()
	to, err := r.c.People.Contact(ctx, person)
	if err != nil {
		return q, err
	}
	if outside != "" {
		if q, err := r.Outside(ctx, outside); !errors.Is(err, ErrNotFound) {
			return q, cmp.Or(err, ErrOpen)
		}
	}
	list, err := r.List(ctx, person)
	if err != nil {
		return q, err
	}
	if len(list) >= MaxRequests {
		return q, ErrTooMany
	}
	if i := slices.IndexFunc(list, func(o Request) bool { return o.Kind == kind && o.State.Open() }); i >= 0 {
		return list[i], ErrOpen
	}
	now := r.now()
	q = Request{ID: newID(), Person: person, Kind: kind, State: Pending, Made: now, Changed: now, Text: text, Outside: outside}
	var letters []mail.Message
	if kind == Deletion {
		q.Due = now.Add(r.c.Wait)
		letters = append(letters, r.letter("deletion", person, to, q.Due))
	}
	if err := r.put(ctx, q, letters...); err != nil {
		return Request{}, err
	}
	r.poke()
	return q, nil
}

// letter is a message about a request, with a date.
func (r *Register) letter(kind, owner string, to Contact, at time.Time) mail.Message {
	return mail.Message{Kind: kind, To: to.Email, Owner: owner, Language: to.Language, Path: Path, Values: map[string]string{"Date": at.Format(time.DateOnly)}}
}

// poke has the work looked at now.
func (r *Register) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Cancel takes back a person's request that has not been begun, and ends a restriction. ErrOver where it is too late.
func (r *Register) Cancel(ctx context.Context, person, id string) (q Request, err error) {
	defer func() { r.tell(ctx, person, "rights.cancel", id, err) }()
	r.change.Lock()
	defer r.change.Unlock()
	if q, err = r.Get(ctx, person, id); err != nil {
		return q, err
	}
	switch {
	case q.State == Pending:
		q.State = Cancelled
	case q.State == InProgress && q.Kind == Restriction:
		for _, a := range q.Accounts {
			if err := r.c.People.Enable(ctx, a); err != nil {
				return q, err
			}
		}
		q.State = Completed
	default:
		return q, ErrOver
	}
	return q, r.close(ctx, &q)
}

// Decide is an operator's word on a request that is pending: that a correction was made, or that any is refused, which needs
// a reason. The person sees both.
func (r *Register) Decide(ctx context.Context, id string, to State, reason string) (q Request, err error) {
	r.change.Lock()
	defer r.change.Unlock()
	if q, err = r.Find(ctx, id); err != nil {
		return q, err
	}
	reason = strings.TrimSpace(reason)
	switch n := utf8.RuneCountInString(reason); {
	case n > MaxReason || !utf8.ValidString(reason) || (to == Refused) != (n > 0):
		return q, fmt.Errorf("%w: a refusal, and nothing else, has a reason, of at most %d characters", ErrInvalid, MaxReason)
	case to != Refused && (to != Completed || q.Kind != Correction):
		return q, fmt.Errorf("%w: an operator refuses requests, and completes corrections", ErrInvalid)
	case q.State != Pending:
		return q, ErrOver
	}
	q.State, q.Reason = to, reason
	var letters []mail.Message
	if c, err := r.c.People.Contact(ctx, q.Person); err == nil {
		letters = append(letters, r.letter("request", q.Person, c, r.now()))
	} else if !errors.Is(err, ErrNobody) {
		return q, err
	}
	return q, r.close(ctx, &q, letters...)
}

// close stores a request that is over. It holds no text any more.
func (r *Register) close(ctx context.Context, q *Request, letters ...mail.Message) error {
	q.Changed, q.Text = r.now(), ""
	return r.put(ctx, *q, letters...)
}

// put stores a request, with messages about it.
func (r *Register) put(ctx context.Context, q Request, letters ...mail.Message) error {
	stored := record{Request: q}
	stored.Text, stored.Outside, stored.Reason = "", "", ""
	if p := (private{q.Text, q.Outside, q.Reason}); q.Person != "" && p != (private{}) {
		plain, err := json.Marshal(p)
		if err == nil {
			stored.Sealed, err = r.c.Vault.Seal(ctx, q.Person, q.ID, plain)
		}
		if err != nil {
			return fmt.Errorf("seal request: %w", err)
		}
	}
	text, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	b := new(state.Batch)
	if q.State.Open() {
		b.Put([]byte(requestPrefix+q.ID), text)
		b.Put([]byte(openPrefix+q.ID), []byte{1})
		b.Put([]byte(personPrefix+q.Person+"/"+q.ID), []byte{1})
	} else {
		b.PutTTL([]byte(requestPrefix+q.ID), text, r.c.Keep)
		b.Delete([]byte(openPrefix + q.ID))
		if q.Person != "" {
			b.PutTTL([]byte(personPrefix+q.Person+"/"+q.ID), []byte{1}, r.c.Keep)
		}
	}
	if q.Outside != "" {
		key, err := r.outsideKey(ctx, q.Outside)
		if err != nil {
			return err
		}
		b.PutTTL(key, []byte(q.ID), r.c.Keep)
	}
	if len(letters) > 0 {
		err = r.c.Mail.Post(ctx, b, letters...)
	} else {
		err = r.c.Store.Commit(ctx, b)
	}
	if err != nil {
		return fmt.Errorf("store request: %w", err)
	}
	return nil
}

// Get returns a person's request; ErrNotFound for somebody else's.
func (r *Register) Get(ctx context.Context, person, id string) (Request, error) {
	q, err := r.Find(ctx, id)
	if err == nil && (person == "" || q.Person != person) {
		return Request{}, ErrNotFound
	}
	return q, err
}

// Outside returns a request by what it is called elsewhere, for operators.
func (r *Register) Outside(ctx context.Context, name string) (Request, error) {
	if name == "" || len(name) > 100 {
		return Request{}, ErrNotFound
	}
	key, err := r.outsideKey(ctx, name)
	if err != nil {
		return Request{}, err
	}
	id, err := r.c.Store.Get(ctx, key)
	if errors.Is(err, state.ErrNotFound) {
		return Request{}, ErrNotFound
	}
	if err != nil {
		return Request{}, fmt.Errorf("read request: %w", err)
	}
	return r.Find(ctx, string(id))
}

// outsideKey is where the id of a request stands that is called so elsewhere.
func (r *Register) outsideKey(ctx context.Context, name string) ([]byte, error) {
	sum, err := r.c.Vault.MAC(ctx, "gateway", name)
	return append([]byte(outsidePrefix), sum[:]...), err
}

// Find returns a request, for operators.
func (r *Register) Find(ctx context.Context, id string) (Request, error) {
	if len(id) > 100 {
		return Request{}, ErrNotFound
	}
	value, err := r.c.Store.Get(ctx, []byte(requestPrefix+id))
	if errors.Is(err, state.ErrNotFound) {
		return Request{}, ErrNotFound
	}
	var stored record
	if err == nil {
		err = json.Unmarshal(value, &stored)
	}
	q := stored.Request
	if err == nil && stored.Sealed != nil {
		var plain []byte
		var p private
		if plain, err = r.c.Vault.Open(ctx, q.Person, q.ID, stored.Sealed); err == nil {
			err = json.Unmarshal(plain, &p)
		}
		if errors.Is(err, vault.ErrShredded) { // the person is being removed, and the request with them
			err = nil
		}
		q.Text, q.Outside, q.Reason = p.Text, p.Outside, p.Reason
	}
	if err != nil {
		return Request{}, fmt.Errorf("read request %s: %w", id, err)
	}
	return q, nil
}

// List returns a person's requests, the newest first.
func (r *Register) List(ctx context.Context, person string) ([]Request, error) {
	ids, err := r.ids(ctx, personPrefix+person+"/", "", MaxRequests+1)
	if err != nil {
		return nil, err
	}
	list, err := r.read(ctx, ids)
	slices.SortFunc(list, func(a, b Request) int { return cmp.Or(b.Made.Compare(a.Made), cmp.Compare(a.ID, b.ID)) })
	return list, err
}

// All returns at most limit requests with ids above after, by id, for operators; open alone where it says so.
func (r *Register) All(ctx context.Context, open bool, after string, limit int) ([]Request, error) {
	prefix := requestPrefix
	if open {
		prefix = openPrefix
	}
	ids, err := r.ids(ctx, prefix, after, min(limit, MaxList))
	if err != nil {
		return nil, err
	}
	return r.read(ctx, ids)
}

// ids are the ids behind a prefix, above after.
func (r *Register) ids(ctx context.Context, prefix, after string, limit int) (list []string, err error) {
	for e, err := range r.c.Store.Scan(ctx, []byte(prefix), []byte(prefix+after)) {
		if err != nil {
			return nil, fmt.Errorf("list requests: %w", err)
		}
		if len(list) >= limit {
			break
		}
		if id := string(e.Key[len(prefix):]); id != after {
			list = append(list, id)
		}
	}
	return list, nil
}

// read returns requests by their ids, without those that are gone meanwhile.
func (r *Register) read(ctx context.Context, ids []string) (list []Request, err error) {
	for _, id := range ids {
		q, err := r.Find(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, q)
	}
	return list, nil
}

// Restricted reports whether a person asked that nothing of theirs be used.
func (r *Register) Restricted(ctx context.Context, person string) (bool, error) {
	list, err := r.List(ctx, person)
	return slices.ContainsFunc(list, func(q Request) bool { return q.Kind == Restriction && q.State.Open() }), err
}

// tell writes what a person did into the audit log.
func (r *Register) tell(ctx context.Context, actor, action, subject string, err error) {
	if r.c.Audit == nil {
		return
	}
	e := audit.Entry{Actor: cmp.Or(actor, "unknown"), Action: action, Subject: audit.Subject(subject), Outcome: audit.Done}
	if err != nil {
		e.Outcome, e.Reason = audit.Refused, "failed"
		for word, known := range map[string]error{"not_found": ErrNotFound, "nobody": ErrNobody, "last_owner": ErrBlocked, "open": ErrOpen, "over": ErrOver, "invalid": ErrInvalid, "too_many": ErrTooMany} {
			if errors.Is(err, known) {
				e.Reason = word
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err == nil {
		_, err = r.c.Audit.Append(ctx, e)
	} else {
		err = r.c.Audit.Seldom(ctx, e)
	}
	if err != nil {
		r.c.Log.ErrorContext(ctx, "not in the audit log", "error", err)
	}
}

// newID returns 80 random bits behind a prefix.
func newID() string {
	var b [10]byte
	rand.Read(b[:]) // never fails
	return "req_" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}
