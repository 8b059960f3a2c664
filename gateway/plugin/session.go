package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/deadline"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/plugin/shared"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Errors of host operations. An ABI tells them to its guests in its own way; whatever wraps none of them is reported as
// ErrUnavailable.
var (
	ErrNotFound     = shared.ErrNotFound
	ErrConflict     = shared.ErrConflict
	ErrInvalid      = shared.ErrInvalid
	ErrLimit        = shared.ErrLimit
	ErrDenied       = errors.New("not granted")
	ErrUnavailable  = errors.New("not available now")
	ErrInsufficient = errors.New("insufficient balance")
	ErrExpired      = errors.New("revoked or expired")
)

// Accounts finds who an API key belongs to.
type Accounts interface {
	// Key returns the identity behind a presented key. Errors wrap ErrNotFound or ErrExpired (also revoked, or the
	// account closed), or mean that it can not be said now.
	Key(ctx context.Context, presented []byte) (exchange.Identity, error)
}

// Ledger moves money for plugins that were granted it. x is the exchange the plugin works for.
type Ledger interface {
	// Hold reserves what max costs at most. Errors wrap ErrInsufficient or ErrNotFound (no such account).
	Hold(ctx context.Context, x *exchange.Exchange, account, model string, max *exchange.Usage) (hold string, amount exchange.Amount, err error)
	// Settle charges usage against a hold. Errors wrap ErrNotFound (no such hold).
	Settle(ctx context.Context, x *exchange.Exchange, hold string, usage *exchange.Usage, tags map[string]string) (*exchange.Receipt, error)
	// Release gives a hold back. Errors wrap ErrNotFound.
	Release(ctx context.Context, x *exchange.Exchange, hold string) error
}

// Services is what plugins can ask of the rest of the gateway. What is nil is answered with ErrUnavailable.
type Services struct {
	Accounts Accounts
	Ledger   Ledger
}

// Session is what one instance may do on the host while an event runs: grants are checked and what it uses is counted. It
// belongs to the instance and is found from the context that host functions get, by SessionOf.
type Session struct {
	plugin   *config.Plugin
	limits   config.PluginLimits // none is zero, but Instances may be
	log      *slog.Logger
	services Services
	state    *shared.Store // nil when it is not granted
	cache    *shared.Cache // likewise
	now      func() time.Time
	clock    bool // now is the Host's own, not the system's
	random   io.Reader

	ctx      context.Context
	event    *Event // nil while a stage is configured, and outside a module
	exchange *exchange.Exchange
	budget   int64 // fuel that the guest has not been given yet
	settled  bool  // the guest has used all of what it was given
	calls    int
	waited   time.Duration     // in host operations
	asked    time.Time         // when the last one that may wait began
	spare    *deadline.Context // of the last one
	logged   int
	dropped  int
	grown    bool // the guest was refused memory
	line     []byte
}

// sessionKey finds the Session in a context.
type sessionKey struct{}

// guestContext is the context a guest runs under. It is part of the instance, so that a call allocates none.
type guestContext struct {
	context.Context
	session *Session
}

// Value knows the session alone: nothing of the caller's context is the engine's business.
func (c *guestContext) Value(key any) any {
	if _, ok := key.(sessionKey); ok {
		return c.session
	}
	return nil
}

// SessionOf returns the session of the instance a host function was called by.
func SessionOf(ctx context.Context) *Session {
	s, _ := ctx.Value(sessionKey{}).(*Session)
	return s
}

// NewSession returns a session of its own, for running a plugin's code outside a module as plugintest does. Begin must be
// called before each event.
func NewSession(h *Host, p *config.Plugin) *Session {
	s := &Session{plugin: p, limits: p.Limits.Whole(), log: h.config.Log.With("plugin", p.Name), services: h.config.Services, now: h.config.Now, clock: h.clock, random: h.config.Random, ctx: context.Background()}
	kept := h.keptOf(p.Name)
	if s.granted("state") {
		s.state = kept.state
	}
	if s.granted("cache") {
		s.cache = kept.cache
	}
	return s
}

// Begin starts the budget of an event. x is nil while a stage is configured.
func (s *Session) Begin(ctx context.Context, x *exchange.Exchange) {
	s.ctx, s.event, s.exchange, s.calls, s.waited, s.logged, s.dropped = ctx, nil, x, 0, 0, 0, 0
}

// End closes the event: what was dropped of its log is said once.
func (s *Session) End() {
	s.flush()
	if s.dropped > 0 {
		s.log.LogAttrs(s.ctx, slog.LevelWarn, "plugin logs too much", slog.Int("dropped_octets", s.dropped))
	}
	if s.waited >= s.limits.Wait {
		s.log.LogAttrs(s.ctx, slog.LevelWarn, "plugin's host operations waited too long", slog.Duration("waited", s.waited))
	}
	s.ctx, s.event, s.exchange = context.Background(), nil, nil
}

func (s *Session) granted(capability string) bool {
	return slices.Contains(s.plugin.Grants, capability)
}

// enter counts a host operation.
func (s *Session) enter() error {
	if s.calls++; s.calls > s.limits.Operations {
		return ErrLimit
	}
	return nil
}

// Log writes a line of the guest's to the log, cut at abi.MaxLine octets, and nothing more once the event has used up
// limits.log. Level is one of abi's; an unknown one counts as error.
func (s *Session) Log(level int32, line []byte) {
	cut := line[:min(len(line), abi.MaxLine)]
	cost := max(len(cut), 16) // an empty line costs too
	if s.logged+cost > int(s.limits.Log) {
		s.dropped += max(len(line), 1)
		return
	}
	s.logged += cost
	l := slog.LevelError
	switch level {
	case abi.LogDebug:
		l = slog.LevelDebug
	case abi.LogInfo:
		l = slog.LevelInfo
	case abi.LogWarn:
		l = slog.LevelWarn
	}
	if !s.log.Enabled(s.ctx, l) {
		return
	}
	text := printable(cut)
	if s.exchange != nil {
		s.log.LogAttrs(s.ctx, l, "plugin says", slog.String("message", text), slog.String("exchange", s.exchange.ID))
		return
	}
	s.log.LogAttrs(s.ctx, l, "plugin says", slog.String("message", text))
}

// printable makes a guest's octets fit for a log: valid UTF-8 without control characters.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '.'
		}
		return r
	}, string(b))
}

// Write takes what a guest prints to standard output or error, as log lines. It never fails, but takes fuel for every octet:
// not all of them use up limits.log.
func (s *Session) Write(p []byte) (int, error) {
	s.charge(int64(len(p)))
	for _, c := range p {
		if c == '\n' || len(s.line) >= abi.MaxLine {
			s.flush()
		}
		if c != '\n' {
			s.line = append(s.line, c)
		}
		if s.dropped > 0 {
			s.dropped += len(p)
			s.line = s.line[:0]
			break
		}
	}
	return len(p), nil
}

func (s *Session) flush() {
	if len(s.line) > 0 {
		s.Log(abi.LogWarn, s.line)
		s.line = s.line[:0]
	}
}

// Now is the wall clock, for the host's own use, in nanoseconds since 1970: at, where that is not 0 and the Host has no clock of
// its own.
func (s *Session) Now(at int64) int64 {
	if at == 0 || s.clock {
		return s.now().UnixNano()
	}
	return at
}

// Time is the wall clock, for the guest.
func (s *Session) Time() (time.Time, error) { return s.now(), s.enter() }

// Random fills b, at most abi.MaxRandom octets, from the system's generator.
func (s *Session) Random(b []byte) error {
	if err := s.enter(); err != nil {
		return err
	}
	if len(b) > abi.MaxRandom {
		return ErrInvalid
	}
	_, err := io.ReadFull(s.random, b)
	return err
}

// ends is when the event's time is over; zero: nothing says so.
func (s *Session) ends() time.Time {
	if s.event == nil {
		return deadline.Earlier(s.ctx, time.Time{})
	}
	return deadline.Earlier(s.ctx, s.event.Until())
}

// patience begins an operation that may wait: until the event's time is over, or what is left of limits.wait.
// ErrUnavailable when the event's operations have waited long enough.
func (s *Session) patience() (*deadline.Context, error) {
	left := s.limits.Wait - s.waited
	if left <= 0 {
		return nil, fmt.Errorf("%w: the event's operations have waited %s already", ErrUnavailable, s.waited)
	}
	s.asked = time.Now()
	at := s.asked.Add(left)
	if ends := s.ends(); !ends.IsZero() && ends.Before(at) {
		at = ends
	}
	p := s.spare
	if p == nil {
		p = new(deadline.Context)
	}
	p.BeginUntil(s.ctx, at)
	return p, nil
}

// served ends an operation that patience began. The next one uses its context again, where nobody has kept it.
func (s *Session) served(p *deadline.Context) {
	s.waited += time.Since(s.asked)
	if s.spare = nil; p.End() {
		s.spare = p
	}
}

// State is the plugin's shared state; it needs the grant state.
func (s *Session) State() (*shared.Store, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	if s.state == nil {
		return nil, ErrDenied
	}
	return s.state, nil
}

// Cache is the plugin's cache and the account whose part of it the event may use, the caller's; it needs the grant cache.
// ErrUnavailable when the caller is not known.
func (s *Session) Cache() (cache *shared.Cache, account string, err error) {
	if err := s.enter(); err != nil {
		return nil, "", err
	}
	if s.cache == nil {
		return nil, "", ErrDenied
	}
	if s.exchange == nil || s.exchange.Identity.Account == "" {
		return nil, "", ErrUnavailable
	}
	return s.cache, s.exchange.Identity.Account, nil
}

// Key finds who a presented API key belongs to; it needs the grant accounts.
func (s *Session) Key(presented []byte) (exchange.Identity, error) {
	if err := s.enter(); err != nil {
		return exchange.Identity{}, err
	}
	if !s.granted("accounts") {
		return exchange.Identity{}, ErrDenied
	}
	if s.services.Accounts == nil || s.exchange == nil {
		return exchange.Identity{}, ErrUnavailable
	}
	if len(presented) == 0 || len(presented) > abi.MaxKey {
		return exchange.Identity{}, ErrNotFound
	}
	ctx, err := s.patience()
	if err != nil {
		return exchange.Identity{}, err
	}
	defer s.served(ctx)
	id, err := s.services.Accounts.Key(ctx, presented)
	if err == nil {
		s.exchange.Presented = id.Key // what the key does not allow is refused, whatever becomes of the result
	}
	return id, err
}

func (s *Session) ledger() (Ledger, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	if !s.granted("ledger") {
		return nil, ErrDenied
	}
	if s.services.Ledger == nil || s.exchange == nil {
		return nil, ErrUnavailable
	}
	return s.services.Ledger, nil
}

// Hold reserves what a call can cost; it needs the grant ledger, and account must be the caller's.
func (s *Session) Hold(account, model string, max *exchange.Usage) (string, exchange.Amount, error) {
	l, err := s.ledger()
	if err != nil {
		return "", exchange.Amount{}, err
	}
	if account == "" || account != s.exchange.Identity.Account {
		return "", exchange.Amount{}, fmt.Errorf("%w: a hold on an account that is not the caller's", ErrInvalid)
	}
	ctx, err := s.patience()
	if err != nil {
		return "", exchange.Amount{}, err
	}
	defer s.served(ctx)
	hold, amount, err := l.Hold(ctx, s.exchange, account, model, max)
	if err == nil {
		// A hold that was placed is a fact, whatever becomes of the result: the exchange knows it, so that the gateway can
		// settle it should the plugin never do so.
		s.exchange.Hold = hold
	}
	return hold, amount, err
}

// Settle charges a hold; it needs the grant ledger, and the hold must be the exchange's.
func (s *Session) Settle(hold string, usage *exchange.Usage, tags map[string]string) (*exchange.Receipt, error) {
	l, err := s.ledger()
	if err != nil {
		return nil, err
	}
	if hold == "" || hold != s.exchange.Hold {
		return nil, ErrNotFound
	}
	ctx, err := s.patience()
	if err != nil {
		return nil, err
	}
	defer s.served(ctx)
	return l.Settle(ctx, s.exchange, hold, usage, tags)
}

// Release gives a hold back; it needs the grant ledger, and the hold must be the exchange's.
func (s *Session) Release(hold string) error {
	l, err := s.ledger()
	if err != nil {
		return err
	}
	if hold == "" || hold != s.exchange.Hold {
		return ErrNotFound
	}
	ctx, err := s.patience()
	if err != nil {
		return err
	}
	defer s.served(ctx)
	return l.Release(ctx, s.exchange, hold)
}
