// Package mail sends people messages: its main type is Office, a queue in the store that loses nothing in a crash, tries
// again, and gives up at last.
//
// A message waits as what it says (its kind, its values, its link), sealed under the key of the person or account it is
// about, or a key of its own that is destroyed with it: what waited leaves nothing readable behind. It is written out in
// the language of who gets it when it is sent. Links begin with the configured public URL and with nothing else.
package mail

import (
	"container/heap"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-gateway/postern/gateway/state"
)

// Errors of an Office.
var (
	ErrFull      = errors.New("too many messages wait to be sent")
	ErrThrottled = errors.New("this address was sent enough for now")
	ErrInvalid   = errors.New("not a message")
	ErrNotFound  = errors.New("no such message")
	ErrClosed    = errors.New("the mail office is closed")
)

// Vault seals what is stored under a key of its owner. Shred destroys the key.
type Vault interface {
	Seal(ctx context.Context, owner, name string, plain []byte) ([]byte, error)
	Open(ctx context.Context, owner, name string, sealed []byte) ([]byte, error)
	Shred(ctx context.Context, owner string) error
}

// Transport takes one written message to where it goes. An error that is a Refusal is final; after any other the message
// is tried again.
type Transport interface {
	Send(ctx context.Context, l *Letter) error
}

// Refusal is a receiver's last word.
type Refusal struct {
	Code int // SMTP reply code (RFC 5321 section 4.2), 500 to 599
}

// Error names the code alone: what servers write beside it repeats the address.
func (r Refusal) Error() string {
	return fmt.Sprintf("the receiver refused the message with %d", r.Code)
}

// Message is what somebody is told.
type Message struct {
	Kind     string            // of the catalogue, such as "confirm"
	To       string            // an address, without a name
	Owner    string            // id of whom it is about; "": nobody yet, it is sealed under a key of its own
	Language string            // "en" or "zh"; others get "en"
	Path     string            // of the link below the public URL, such as "/confirm"; "": no link
	Token    string            // the link's parameter "token"
	Values   map[string]string // what the kind's text needs besides Link and Service; made harmless
	Expires  time.Time         // it is worth nothing afterwards and is not sent; zero: never
	Asked    bool              // anybody can ask for it, so one address gets only some of them an hour
}

// Config configures an Office. Store, Vault, Transport, From and Public are required.
type Config struct {
	Store        state.Store
	Vault        Vault
	Transport    Transport
	From         string   // sender by RFC 5322
	Public       *url.URL // what links begin with
	Service      string   // what messages call the service; default its host
	Queue        int      // messages that may wait, default 10000; those that anybody can ask for have nine tenths of it
	PerRecipient int      // asked-for messages an hour to one address, default 6
	Senders      int      // messages on their way at once, default 2
	Log          *slog.Logger
	Now          func() time.Time // default time.Now
}

// Waits between tries; after the last one it is given up.
var waits = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour}

const (
	prefix    = "mail/q/"          // + id
	keepLost  = 7 * 24 * time.Hour // how long a message that was given up can be tried again by hand
	sendTime  = 5 * time.Minute    // bounds one try, whatever the transport's own limit
	storeTime = 30 * time.Second
)

// Office is a queue of messages. It is safe for concurrent use.
type Office struct {
	c        Config
	from     *mail.Address
	limiter  limiter
	wake     chan struct{}
	stop     context.CancelFunc
	stopping context.Context
	senders  sync.WaitGroup

	mu     sync.Mutex // guards what follows; held only for moments
	items  map[string]*item
	queue  schedule
	closed bool
}

// item is a message in the queue; what it says is in the store.
type item struct {
	record
	id    string
	at    int  // place in the schedule; -1 while it is being sent
	taken bool // a sender has it
	gone  bool // was removed meanwhile
}

// record is a message as it is stored.
type record struct {
	Owner  string    `json:"owner"`
	Kind   string    `json:"kind"`
	Made   time.Time `json:"made"`
	Next   time.Time `json:"next"` // when to try it, or, lost, when to forget it
	Tries  int       `json:"tries"`
	Lost   string    `json:"lost,omitempty"` // why it was given up
	Sealed []byte    `json:"sealed"`
}

// Open reads the queue. Nothing is sent before Start.
func Open(ctx context.Context, c Config) (*Office, error) {
	o := &Office{c: c, items: map[string]*item{}, wake: make(chan struct{}, 1)}
	if c.Store == nil || c.Vault == nil || c.Transport == nil || c.Public == nil {
		return nil, fmt.Errorf("open mail: %w: store, vault, transport and public URL are needed", ErrInvalid)
	}
	var err error
	if o.from, err = mail.ParseAddress(c.From); err != nil {
		return nil, fmt.Errorf("open mail: sender: %w", err)
	}
	if o.c.Service == "" {
		o.c.Service = c.Public.Hostname()
	}
	for _, d := range []struct {
		value  *int
		preset int
	}{{&o.c.Queue, 10_000}, {&o.c.PerRecipient, 6}, {&o.c.Senders, 2}} {
		if *d.value <= 0 {
			*d.value = d.preset
		}
	}
	if o.c.Log == nil {
		o.c.Log = slog.Default()
	}
	if o.c.Now == nil {
		o.c.Now = time.Now
	}
	o.limiter.most = o.c.PerRecipient
	rand.Read(o.limiter.key[:]) // never fails
	for e, err := range c.Store.Scan(ctx, []byte(prefix), nil) {
		if err != nil {
			return nil, fmt.Errorf("open mail: %w", err)
		}
		it := &item{id: string(e.Key[len(prefix):])}
		if err := json.Unmarshal(e.Value, &it.record); err != nil {
			return nil, fmt.Errorf("open mail: record %s is damaged", e.Key)
		}
		it.Sealed = nil
		o.items[it.id] = it
		heap.Push(&o.queue, it)
	}
	o.stopping, o.stop = context.WithCancel(context.Background())
	return o, nil
}

// Start begins to send, in the background, until Close.
func (o *Office) Start() {
	for range o.c.Senders {
		o.senders.Go(o.send)
	}
}

// Close ends what is under way, within its own time, and keeps the rest for the next run.
func (o *Office) Close() error {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return ErrClosed
	}
	o.closed = true
	o.mu.Unlock()
	o.stop()
	o.senders.Wait()
	return nil
}

// Post puts messages into the queue, together with what else is in batch (nil: nothing): either all of it is durable when
// Post returns, or none. Of messages that anybody can ask for, one address gets only some an hour: then it is ErrThrottled,
// and nothing was written.
func (o *Office) Post(ctx context.Context, batch *state.Batch, list ...Message) error {
	now := o.c.Now().UTC()
	b := new(state.Batch)
	if batch != nil {
		b.Writes = append(b.Writes, batch.Writes...)
	}
	var made []*item
	undo := func() { // keys made for messages that do not wait after all
		for _, it := range made {
			o.forget(it)
		}
	}
	room := o.c.Queue
	for i := range list {
		m := &list[i]
		if err := o.check(m); err != nil {
			return err
		}
		if m.Asked {
			room = o.c.Queue - o.c.Queue/10 // the rest is for what tells people about their own accounts
		}
		if m.Asked && !o.limiter.allow(m.To, now) {
			return ErrThrottled
		}
	}
	for i := range list {
		it, err := o.item(ctx, &list[i], now)
		if err != nil {
			undo()
			return err
		}
		made = append(made, it)
		text, err := json.Marshal(it.record)
		if err != nil {
			undo()
			return err
		}
		it.Sealed = nil
		b.Put([]byte(prefix+it.id), text)
	}
	o.mu.Lock()
	switch {
	case o.closed:
		o.mu.Unlock()
		undo()
		return ErrClosed
	case len(o.items)+len(made) > room:
		o.mu.Unlock()
		undo()
		return ErrFull
	}
	for _, it := range made { // counted from now on; sent when they are durable
		o.items[it.id], it.at = it, -1
	}
	o.mu.Unlock()
	err := o.c.Store.Commit(ctx, b)
	var late []*item // removed before they were durable
	o.mu.Lock()
	for _, it := range made {
		switch {
		case err != nil:
			delete(o.items, it.id)
		case it.gone:
			late = append(late, it)
		default:
			heap.Push(&o.queue, it)
		}
	}
	o.mu.Unlock()
	for _, it := range late {
		o.drop(it)
	}
	if err != nil {
		undo()
		return fmt.Errorf("store mail: %w", err)
	}
	o.nudge()
	return nil
}

// check refuses what can not be sent.
func (o *Office) check(m *Message) error {
	a, err := mail.ParseAddress(m.To)
	switch {
	case err != nil || a.Address != m.To || strings.ContainsAny(m.To, "\r\n\x00 "):
		return fmt.Errorf("%w: the receiver is not an address", ErrInvalid)
	case m.Path != "" && !strings.HasPrefix(m.Path, "/") || strings.ContainsAny(m.Path, "?#\\"):
		return fmt.Errorf("%w: link %q is not a path", ErrInvalid, m.Path)
	}
	_, err = o.write(m, "check", time.Time{}) // the kind is there, and every value it needs
	return err
}

// item makes a message ready for the store.
func (o *Office) item(ctx context.Context, m *Message, now time.Time) (*item, error) {
	var random [10]byte
	rand.Read(random[:]) // never fails
	it := &item{id: strings.ToLower(base32.StdEncoding.EncodeToString(random[:])), record: record{Owner: m.Owner, Kind: m.Kind, Made: now, Next: now}}
	if it.Owner == "" {
		it.Owner = own(it.id)
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if it.Sealed, err = o.c.Vault.Seal(ctx, it.Owner, "message:"+it.id, text); err != nil {
		return nil, fmt.Errorf("seal mail: %w", err)
	}
	return it, nil
}

// own is the owner of a message that is nobody's.
func own(id string) string { return "mail_" + id }

// forget destroys a message's own key.
func (o *Office) forget(it *item) {
	if it.Owner != own(it.id) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()
	if err := o.c.Vault.Shred(ctx, it.Owner); err != nil {
		o.c.Log.Warn("mail: the key of a message is not destroyed", "letter", it.id, "error", err)
	}
}

// nudge wakes a sender.
func (o *Office) nudge() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// send is one sender.
func (o *Office) send() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		it, wait := o.next()
		if it != nil {
			o.nudge() // another may be due
			o.handle(it)
			continue
		}
		timer.Reset(wait)
		select {
		case <-o.stopping.Done():
			return
		case <-o.wake:
		case <-timer.C:
		}
		if o.stopping.Err() != nil {
			return
		}
	}
}

// next takes the message that is due, or says how long until one is.
func (o *Office) next() (*item, time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || len(o.queue) == 0 {
		return nil, time.Hour
	}
	first := o.queue[0]
	if wait := first.Next.Sub(o.c.Now()); wait > 0 {
		return nil, min(wait, time.Hour)
	}
	heap.Pop(&o.queue)
	first.taken = true
	return first, 0
}

// handle tries one message, and says in the store what became of it.
func (o *Office) handle(it *item) {
	if it.Lost != "" {
		o.drop(it)
		return
	}
	ctx, cancel := context.WithTimeout(o.stopping, sendTime)
	defer cancel()
	key := []byte(prefix + it.id)
	text, err := o.c.Store.Get(ctx, key)
	var r record
	var m Message
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err == nil {
		var plain []byte
		if plain, err = o.c.Vault.Open(ctx, r.Owner, "message:"+it.id, r.Sealed); err == nil {
			err = json.Unmarshal(plain, &m)
		}
		if err != nil {
			// Its owner's key was destroyed, or it is damaged: nobody will ever read it.
			o.c.Log.Warn("mail: a message can not be read and is dropped", "letter", it.id, "kind", r.Kind, "error", err)
			o.drop(it)
			return
		}
	}
	if errors.Is(err, state.ErrNotFound) {
		o.drop(it)
		return
	}
	if err != nil {
		o.postpone(it, err)
		return
	}
	now := o.c.Now()
	if !m.Expires.IsZero() && !now.Before(m.Expires) {
		o.lose(it, r, m.Expires, "its link was over before it could be sent")
		return
	}
	// The try is on disk before it is made: after a crash the message waits like one that failed, rather than going out
	// once more at each start.
	r.Tries++
	r.Next = now.Add(waits[min(r.Tries, len(waits))-1])
	if err := o.store(ctx, it, r); err != nil {
		o.postpone(it, err)
		return
	}
	letter, err := o.write(&m, it.id, r.Made)
	if err == nil {
		err = o.c.Transport.Send(ctx, letter)
	}
	var no Refusal
	switch {
	case err == nil:
		o.drop(it)
	case errors.As(err, &no):
		o.lose(it, r, m.Expires, no.Error())
	case r.Tries > len(waits):
		o.lose(it, r, m.Expires, "it could not be sent in all its tries")
	default:
		o.c.Log.Warn("mail: a message is tried again later", "letter", it.id, "kind", r.Kind, "tries", r.Tries, "next", r.Next, "error", blind(err, m.To))
		o.back(it)
	}
}

// blind is an error's text without the receiver's address.
func blind(err error, address string) string {
	return strings.ReplaceAll(err.Error(), address, "(address)")
}

// store writes what became of a message, unless it was removed.
func (o *Office) store(ctx context.Context, it *item, r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock() // so that a removal comes before or after, not between
	if it.gone {
		return nil
	}
	var b state.Batch
	b.Put([]byte(prefix+it.id), text)
	if err := o.c.Store.Commit(ctx, &b); err != nil {
		return err
	}
	r.Sealed = nil
	it.record = r
	return nil
}

// lose gives a message up; it is kept for a while, for an operator who mends what was wrong, but not beyond the time when it
// is worth nothing.
func (o *Office) lose(it *item, r record, expires time.Time, why string) {
	o.c.Log.Error("mail: a message is given up", "letter", it.id, "kind", r.Kind, "tries", r.Tries, "reason", why)
	now := o.c.Now().UTC()
	r.Lost, r.Next = why, now.Add(keepLost)
	if !expires.IsZero() && expires.Before(r.Next) {
		r.Next = expires
	}
	if !now.Before(r.Next) {
		o.drop(it)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(o.stopping), storeTime)
	defer cancel()
	if err := o.store(ctx, it, r); err != nil {
		o.postpone(it, err)
		return
	}
	o.back(it)
}

// postpone waits for a store that fails.
func (o *Office) postpone(it *item, err error) {
	o.c.Log.Error("mail: the queue can not be read or written", "letter", it.id, "error", err)
	o.mu.Lock()
	it.Next = o.c.Now().Add(time.Minute)
	o.mu.Unlock()
	o.back(it)
}

// back puts a message into the schedule again.
func (o *Office) back(it *item) {
	o.mu.Lock()
	defer o.mu.Unlock()
	it.taken = false
	if !it.gone {
		heap.Push(&o.queue, it)
	}
}

// drop ends a message: it was sent, or there is nothing left of it.
func (o *Office) drop(it *item) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(o.stopping), storeTime)
	defer cancel()
	var b state.Batch
	b.Delete([]byte(prefix + it.id))
	if err := o.c.Store.Commit(ctx, &b); err != nil {
		// It stays in the store and may go out once more after a restart; its key stays with it.
		o.c.Log.Error("mail: a message that was sent is not removed", "letter", it.id, "error", err)
	} else {
		o.forget(it)
	}
	o.mu.Lock()
	delete(o.items, it.id)
	o.mu.Unlock()
}

// Remove takes messages out of the queue, whether they wait or were given up: those of an owner, and those to an address
// (empty: to none). One that is under way can still arrive.
func (o *Office) Remove(ctx context.Context, owner, address string) error {
	o.mu.Lock()
	all := slices.Collect(maps.Values(o.items))
	o.mu.Unlock()
	for _, it := range all {
		if it.Owner != owner && (address == "" || !o.goesTo(ctx, it, address)) {
			continue
		}
		if err := o.remove(ctx, it); err != nil {
			return fmt.Errorf("remove mail: %w", err)
		}
		o.forget(it)
	}
	return nil
}

// goesTo reports whether a message is to an address. One that can not be read is to nobody any more.
func (o *Office) goesTo(ctx context.Context, it *item, address string) bool {
	text, err := o.c.Store.Get(ctx, []byte(prefix+it.id))
	var r record
	var m Message
	if err != nil || json.Unmarshal(text, &r) != nil {
		return false
	}
	plain, err := o.c.Vault.Open(ctx, r.Owner, "message:"+it.id, r.Sealed)
	return err == nil && json.Unmarshal(plain, &m) == nil && m.To == address
}

// remove takes one message out.
func (o *Office) remove(ctx context.Context, it *item) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.items[it.id] != it {
		return nil // sent meanwhile
	}
	var b state.Batch
	b.Delete([]byte(prefix + it.id))
	if err := o.c.Store.Commit(ctx, &b); err != nil {
		return err
	}
	it.gone = true
	if !it.taken && it.at >= 0 {
		heap.Remove(&o.queue, it.at)
	}
	delete(o.items, it.id)
	return nil
}

// Entry is a message in the queue, without what it says and to whom.
type Entry struct {
	ID    string    `json:"id"`
	Kind  string    `json:"kind"`
	Owner string    `json:"owner"`
	Made  time.Time `json:"made"`
	Next  time.Time `json:"next"` // when it is tried, or forgotten where it is lost
	Tries int       `json:"tries"`
	Lost  string    `json:"lost,omitempty"` // why it was given up
}

// List returns what is in the queue, in no order.
func (o *Office) List() []Entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]Entry, 0, len(o.items))
	for _, it := range o.items {
		list = append(list, Entry{ID: it.id, Kind: it.Kind, Owner: it.Owner, Made: it.Made, Next: it.Next, Tries: it.Tries, Lost: it.Lost})
	}
	return list
}

// Retry tries a message that was given up, or that waits for its next try, again now.
func (o *Office) Retry(ctx context.Context, id string) error {
	o.mu.Lock()
	it := o.items[id]
	if it == nil || it.at < 0 {
		o.mu.Unlock()
		return fmt.Errorf("%w, or it is on its way: %s", ErrNotFound, id)
	}
	heap.Remove(&o.queue, it.at)
	it.taken = true
	o.mu.Unlock()
	defer o.nudge()
	defer o.back(it)
	text, err := o.c.Store.Get(ctx, []byte(prefix+id))
	var r record
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err == nil {
		r.Lost, r.Tries, r.Next = "", 0, o.c.Now().UTC()
		err = o.store(ctx, it, r)
	}
	if err != nil {
		return fmt.Errorf("retry mail: %w", err)
	}
	return nil
}

// schedule is a heap of messages by when they are due.
type schedule []*item

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].Next.Before(s[j].Next) }
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].at, s[j].at = i, j
}

// Push implements heap.Interface.
func (s *schedule) Push(x any) {
	it := x.(*item)
	it.at = len(*s)
	*s = append(*s, it)
}

// Pop implements heap.Interface.
func (s *schedule) Pop() any {
	old := *s
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*s = old[:len(old)-1]
	it.at = -1
	return it
}

// limiter counts what addresses were sent within an hour. It knows them by an HMAC under a key of this run.
type limiter struct {
	key  [32]byte
	most int

	mu    sync.Mutex
	fresh map[[32]byte][]time.Time
	stale map[[32]byte][]time.Time // the generation before; what is used again moves to fresh
}

const maxRecipients = 50_000 // addresses in one of two generations; a flood pushes out those that were sent nothing lately

// allow counts one message to an address, or says no.
func (l *limiter) allow(address string, now time.Time) bool {
	mac := hmac.New(sha256.New, l.key[:])
	mac.Write([]byte(strings.ToLower(address)))
	id := [32]byte(mac.Sum(nil))
	l.mu.Lock()
	defer l.mu.Unlock()
	times, ok := l.fresh[id]
	if !ok {
		times = l.stale[id]
		delete(l.stale, id)
		if l.fresh == nil || len(l.fresh) >= maxRecipients {
			l.fresh, l.stale = map[[32]byte][]time.Time{}, l.fresh
		}
	}
	for len(times) > 0 && now.Sub(times[0]) >= time.Hour {
		times = times[1:]
	}
	if len(times) >= l.most {
		l.fresh[id] = times
		return false
	}
	l.fresh[id] = append(times, now)
	return true
}
