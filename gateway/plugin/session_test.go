package plugin

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/sdk/abi"
)

type fakeLedger struct{ account string }

func (l *fakeLedger) Hold(_ context.Context, _ *exchange.Exchange, account, _ string, _ *exchange.Usage) (string, exchange.Amount, error) {
	l.account = account
	return "h1", exchange.Amount{}, nil
}

func (l *fakeLedger) Settle(context.Context, *exchange.Exchange, string, *exchange.Usage, map[string]string) (*exchange.Receipt, error) {
	return &exchange.Receipt{}, nil
}
func (l *fakeLedger) Release(context.Context, *exchange.Exchange, string) error { return nil }

// A plugin can charge the caller of its exchange and nobody else, and use that exchange's hold and no other.
func TestSessionMoney(t *testing.T) {
	t.Parallel()
	l := new(fakeLedger)
	h, err := NewHost(Config{Services: Services{Ledger: l}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(context.Background())
	s := NewSession(h, &config.Plugin{Name: "p", Grants: []string{"ledger"}})
	x := &exchange.Exchange{Identity: exchange.Identity{Account: "a"}}
	s.Begin(context.Background(), x)
	if _, _, err := s.Hold("b", "m", new(exchange.Usage)); !errors.Is(err, ErrInvalid) || l.account != "" {
		t.Errorf("a hold on another's account: %v", err)
	}
	if _, err := s.Settle("", new(exchange.Usage), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("settled without a hold: %v", err)
	}
	id, _, err := s.Hold("a", "m", new(exchange.Usage))
	if err != nil || id != "h1" || x.Hold != "h1" {
		t.Errorf("hold %q, %v; the exchange has %q", id, err, x.Hold)
	}
	if err := s.Release("h2"); !errors.Is(err, ErrNotFound) {
		t.Errorf("released another's hold: %v", err)
	}
	if _, err := s.Settle("h1", new(exchange.Usage), nil); err != nil {
		t.Error(err)
	}
	s.End()
	s.Begin(context.Background(), nil)
	if _, _, err := s.Hold("a", "m", new(exchange.Usage)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a hold while configuring: %v", err)
	}
}

// What a guest logs is cut, counted and made printable, and the next event begins anew.
func TestSessionLog(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	h, err := NewHost(Config{Log: slog.New(slog.NewTextHandler(&b, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(context.Background())
	s := NewSession(h, &config.Plugin{Name: "p"})
	for range 2 {
		b.Reset()
		s.Begin(context.Background(), nil)
		s.Log(abi.LogInfo, []byte("a\x1b[31m\nb\xff"))
		if !strings.Contains(b.String(), "a.[31m.b.") {
			t.Errorf("log %q", b.String())
		}
		for range 100 {
			s.Log(abi.LogInfo, bytes.Repeat([]byte("x"), 5000))
		}
		s.End()
		if n := strings.Count(b.String(), "x"); n > abi.MaxLog || n < abi.MaxLog-abi.MaxLine-20 {
			t.Errorf("%d octets were logged", n)
		}
		if strings.Count(b.String(), "dropped_octets") != 1 {
			t.Error("that lines were dropped is not said once")
		}
	}
	b.Reset()
	s.Begin(context.Background(), nil)
	for range 1000 {
		s.Log(abi.LogInfo, nil)
	}
	s.End()
	if n := strings.Count(b.String(), "plugin says"); n > abi.MaxLog/16 {
		t.Errorf("%d empty lines", n)
	}
}
