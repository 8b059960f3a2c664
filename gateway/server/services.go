package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-gateway/postern/gateway/account"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger"
	"github.com/postern-gateway/postern/gateway/plugin"
	"github.com/postern-gateway/postern/gateway/telemetry"
)

// accounts lets plugins that were granted it look up API keys.
type accounts struct{ accounts *account.Directory }

// Key returns the identity behind a presented key.
func (a accounts) Key(ctx context.Context, presented []byte) (exchange.Identity, error) {
	id, err := a.accounts.Lookup(ctx, presented)
	switch {
	case err == nil:
		return id, nil
	case errors.Is(err, account.ErrUnknown):
		return exchange.Identity{}, plugin.ErrNotFound
	case errors.Is(err, account.ErrRevoked), errors.Is(err, account.ErrExpired), errors.Is(err, account.ErrDisabled):
		return exchange.Identity{}, plugin.ErrExpired
	}
	return exchange.Identity{}, err
}

// money lets plugins that were granted it hold and settle what the exchange they work for costs.
type money struct{ ledger *ledger.Ledger }

// Hold reserves the most the call can cost, at the model's price in force now.
func (m money) Hold(ctx context.Context, x *exchange.Exchange, account, model string, most *exchange.Usage) (string, exchange.Amount, error) {
	if x == nil || account == "" || account != x.Identity.Account {
		return "", exchange.Amount{}, fmt.Errorf("%w: not the caller's account", plugin.ErrNotFound)
	}
	if x.Hold != "" {
		return "", exchange.Amount{}, fmt.Errorf("%w: the exchange has a hold", plugin.ErrInvalid)
	}
	if model == "" || model != x.Call.Model {
		return "", exchange.Amount{}, fmt.Errorf("%w: not the model that was called", plugin.ErrNotFound)
	}
	request := ledger.HoldRequest{Account: account, Exchange: x.ID, Model: model, Price: x.Call.Price, Max: *most}
	if x.Identity.Allows != nil { // it is a key of the gateway's own
		request.Key, request.Cap = x.Identity.Key, x.Identity.Allows.Cap
	}
	hold, err := m.ledger.Hold(ctx, request)
	if err != nil {
		var capped *ledger.CapError
		if errors.As(err, &capped) {
			x.Denied = capped.Problem(m.ledger.Currency(), time.Now())
		}
		return "", exchange.Amount{}, moneyError(err)
	}
	x.Hold = hold.ID
	return hold.ID, hold.Amount, nil
}

// Settle charges usage against the exchange's hold.
func (m money) Settle(ctx context.Context, x *exchange.Exchange, hold string, usage *exchange.Usage, tags map[string]string) (*exchange.Receipt, error) {
	if x == nil || hold == "" || hold != x.Hold {
		return nil, fmt.Errorf("%w: not the exchange's hold", plugin.ErrNotFound)
	}
	receipt, err := m.ledger.Settle(ctx, hold, ledger.Settlement{Usage: *usage, Tags: tags, Exchange: x.ID})
	if err != nil {
		return nil, moneyError(err)
	}
	x.Receipt, x.Hold = receipt, ""
	return receipt, nil
}

// Release gives the exchange's hold back.
func (m money) Release(ctx context.Context, x *exchange.Exchange, hold string) error {
	if x == nil || hold == "" || hold != x.Hold {
		return fmt.Errorf("%w: not the exchange's hold", plugin.ErrNotFound)
	}
	if err := m.ledger.Release(ctx, hold); err != nil {
		return moneyError(err)
	}
	x.Hold = ""
	return nil
}

func moneyError(err error) error {
	switch {
	case errors.Is(err, ledger.ErrInsufficient), errors.Is(err, ledger.ErrCap):
		return fmt.Errorf("%w: %w", plugin.ErrInsufficient, err)
	case errors.Is(err, ledger.ErrAccount), errors.Is(err, ledger.ErrHold):
		return fmt.Errorf("%w: %w", plugin.ErrNotFound, err)
	case errors.Is(err, ledger.ErrInvalid):
		return fmt.Errorf("%w: %w", plugin.ErrInvalid, err)
	}
	return err
}

// Begin records that an upstream is about to be called, if the call is paid for or has an idempotency key. The key comes
// first: a call that is charged must not find it free.
func (w *way) Begin(ctx context.Context, x *exchange.Exchange) error {
	if err := w.begun(ctx); err != nil {
		return err
	}
	if x.Hold == "" {
		return nil
	}
	target, _ := x.Call.Chosen()
	err := w.server.ledger.Begin(ctx, x.Hold, ledger.Attempt{
		Exchange: x.ID, Upstream: target.Upstream, Model: target.Model, Number: x.Attempts, Durability: w.route.Durability,
	})
	if errors.Is(err, ledger.ErrUnavailable) || errors.Is(err, ledger.ErrClosed) {
		w.server.telemetry.Log.ErrorContext(ctx, "call refused: the ledger can not record it", "exchange", x.ID, "error", err)
		return &exchange.Problem{Status: 503, Code: "ledger_unavailable", Title: "Paid calls can not be served now.", Retry: 5 * time.Second}
	}
	return err
}

// Checkpoint notes what the call has used so far.
func (w *way) Checkpoint(x *exchange.Exchange) {
	if x.Hold != "" {
		w.server.ledger.Checkpoint(x.Hold, x.Usage)
	}
}

// Account settles what the exchange used, once, whatever became of it and of the client. A hold that the account stages
// left open is settled here: nobody but the ledger may decide that a call was free.
func (w *way) Account(ctx context.Context, x *exchange.Exchange) {
	if w.accounted {
		return
	}
	w.accounted = true
	if x.Hold == "" && !w.route.chain.Runs(exchange.AccountPhase) {
		return
	}
	gone := errors.Is(ctx.Err(), context.Canceled)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), accountTime)
	defer cancel()
	w.run.Account(ctx, gone)
	if x.Hold == "" {
		return
	}
	w.server.telemetry.Metrics.Unsettled()
	var err error
	if x.Attempts == 0 {
		err = money{w.server.ledger}.Release(ctx, x, x.Hold)
	} else {
		_, err = money{w.server.ledger}.Settle(ctx, x, x.Hold, &x.Usage, nil)
	}
	if err != nil {
		w.server.telemetry.Log.ErrorContext(ctx, "hold left open for now: it ends as decided when the ledger records again", "exchange", x.ID, "hold", x.Hold, "error", err)
	}
}

// observer counts what happens below the handler.
type observer struct{ metrics *telemetry.Metrics }

// Opened counts a connection.
func (o observer) Opened(listener string, p exchange.Protocol) {
	o.metrics.Connection(listener, p.String(), 1)
}

// Closed counts its end.
func (o observer) Closed(listener string, p exchange.Protocol) {
	o.metrics.Connection(listener, p.String(), -1)
}

// Refused counts what never became an exchange.
func (o observer) Refused(listener, reason string) { o.metrics.Refused(listener, reason) }
