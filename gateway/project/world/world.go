// Package world is what a plugin under test meets instead of a gateway: its main type is World, the accounts, the ledger, the
// clock and the random octets behind the host operations. A Stand lets one plugin host serve one World after the other.
package world

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/fetch"
	"github.com/postern-gateway/postern/gateway/plugin"
)

// World is what a plugin meets behind the host operations: accounts, a ledger where every unit costs one unit of the
// currency, a clock that stands still between events, and random octets that are the same in every run.
type World struct {
	mu       sync.Mutex
	accounts map[string]exchange.Identity
	balances map[string]int64
	holds    map[string]*Hold
	now      time.Time
	random   *rand.ChaCha8
	log      bytes.Buffer
	fetches  map[string]fetch.Answer
	asked    []Asked
}

// Hold is what a plugin did with one hold.
type Hold struct {
	Account  string
	Model    string
	Amount   int64
	Max      exchange.Usage
	Settled  bool
	Released bool
	Used     exchange.Usage
	Charged  int64
	Tags     map[string]string
}

// Config is what a World begins with.
type Config struct {
	Accounts map[string]exchange.Identity // by the API key that is presented
	Balances map[string]int64             // what accounts have, in whole units of the currency
	// Fetches are the answers to fetches: by the fetch's name, its URL, or its upstream's name, a space and the path. A header's
	// names are lower case and different.
	Fetches map[string]fetch.Answer
}

// Stand shows a plugin host the World that was put there last, so that tests share what takes long to start. Put is called
// before the host is used.
type Stand struct{ current atomic.Pointer[World] }

// Put makes w what the host meets from now on.
func (s *Stand) Put(w *World) { s.current.Store(w) }

// Now is the World's clock.
func (s *Stand) Now() time.Time { return s.current.Load().Now() }

// Read gives the World's random octets.
func (s *Stand) Read(b []byte) (int, error) { return s.current.Load().Read(b) }

// Write takes the log.
func (s *Stand) Write(b []byte) (int, error) { return s.current.Load().Write(b) }

// Key is the World's.
func (s *Stand) Key(ctx context.Context, presented []byte) (exchange.Identity, error) {
	return s.current.Load().Key(ctx, presented)
}

// Hold is the World's.
func (s *Stand) Hold(ctx context.Context, x *exchange.Exchange, account, model string, most *exchange.Usage) (string, exchange.Amount, error) {
	return s.current.Load().Hold(ctx, x, account, model, most)
}

// Settle is the World's.
func (s *Stand) Settle(ctx context.Context, x *exchange.Exchange, hold string, used *exchange.Usage, tags map[string]string) (*exchange.Receipt, error) {
	return s.current.Load().Settle(ctx, x, hold, used, tags)
}

// Release is the World's.
func (s *Stand) Release(ctx context.Context, x *exchange.Exchange, hold string) error {
	return s.current.Load().Release(ctx, x, hold)
}

// New returns a world that begins on 2 January 2026, with the same random octets every time.
func New(c Config) *World {
	balances := maps.Clone(c.Balances)
	if balances == nil {
		balances = map[string]int64{}
	}
	return &World{
		accounts: c.Accounts, balances: balances, fetches: c.Fetches, holds: map[string]*Hold{},
		now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), random: rand.NewChaCha8([32]byte{1}),
	}
}

// Now is the world's clock.
func (w *World) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// Pass lets the clock go on.
func (w *World) Pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// Read gives the world's random octets.
func (w *World) Read(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.Read(b)
}

// Write takes the log.
func (w *World) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(b)
}

// Said returns what was logged since it was last asked.
func (w *World) Said() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.log.String()
	w.log.Reset()
	return s
}

// Balance is what an account has and no hold reserves.
func (w *World) Balance(account string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.balances[account]
}

// Holds are copies of all holds, by id: "hold-1", "hold-2" ...
func (w *World) Holds() map[string]Hold {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := map[string]Hold{}
	for id, h := range w.holds {
		list[id] = *h
	}
	return list
}

// Key finds an account by the table of accounts. A key called "expired" is expired, one called "unavailable" can not be looked up.
func (w *World) Key(_ context.Context, presented []byte) (exchange.Identity, error) {
	switch string(presented) {
	case "expired":
		return exchange.Identity{}, plugin.ErrExpired
	case "unavailable":
		return exchange.Identity{}, plugin.ErrUnavailable
	}
	id, ok := w.accounts[string(presented)]
	if !ok {
		return exchange.Identity{}, plugin.ErrNotFound
	}
	return id, nil
}

func units(u *exchange.Usage) (sum int64) {
	for _, n := range u.Units {
		sum += n
	}
	return sum
}

func amount(n int64) exchange.Amount {
	a, _ := exchange.Pico(1_000_000_000_000).Times(max(n, 0))
	return a
}

// Hold reserves one for each unit.
func (w *World) Hold(_ context.Context, _ *exchange.Exchange, account, model string, most *exchange.Usage) (string, exchange.Amount, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	balance, ok := w.balances[account]
	cost := units(most)
	switch {
	case !ok:
		return "", exchange.Amount{}, plugin.ErrNotFound
	case balance < cost:
		return "", exchange.Amount{}, plugin.ErrInsufficient
	}
	w.balances[account] -= cost
	id := fmt.Sprintf("hold-%d", len(w.holds)+1)
	w.holds[id] = &Hold{Account: account, Model: model, Amount: cost, Max: *most}
	return id, amount(cost), nil
}

// Settle charges one for each unit, at most what was held.
func (w *World) Settle(_ context.Context, _ *exchange.Exchange, id string, used *exchange.Usage, tags map[string]string) (*exchange.Receipt, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.holds[id]
	if h == nil || h.Settled || h.Released {
		return nil, plugin.ErrNotFound
	}
	h.Settled, h.Used, h.Tags = true, *used, tags
	h.Charged = min(units(used), h.Amount)
	w.balances[h.Account] += h.Amount - h.Charged
	return &exchange.Receipt{ID: id, Account: h.Account, Model: h.Model, Usage: *used, Amount: amount(h.Charged), Balance: amount(w.balances[h.Account])}, nil
}

// Release gives everything back.
func (w *World) Release(_ context.Context, _ *exchange.Exchange, id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.holds[id]
	if h == nil || h.Settled || h.Released {
		return plugin.ErrNotFound
	}
	h.Released = true
	w.balances[h.Account] += h.Amount
	return nil
}
