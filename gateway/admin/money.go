package admin

import (
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/postern-gateway/postern/gateway/account"
	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger"
)

// Account is an account as operators see it.
type Account struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Status  string    `json:"status"`
	Balance *Balance  `json:"balance,omitempty"`
}

// Balance is an account's money; amounts are decimals.
type Balance struct {
	Account   string          `json:"account"`
	Currency  string          `json:"currency"`
	Available exchange.Amount `json:"available"`
	Held      exchange.Amount `json:"held"`
	Total     exchange.Amount `json:"total"`
}

// Entry is one movement of money.
type Entry struct {
	Seq       uint64            `json:"seq"`
	Time      time.Time         `json:"time"`
	Kind      string            `json:"kind"`
	From      string            `json:"from"`
	To        string            `json:"to"`
	Amount    exchange.Amount   `json:"amount"`
	Balance   exchange.Amount   `json:"balance"`
	Ref       string            `json:"ref,omitempty"` // a charge's id; of others the key they were made under
	Of        string            `json:"of,omitempty"`  // a refund's: the charge
	Note      string            `json:"note,omitempty"`
	Model     string            `json:"model,omitempty"`
	Upstream  string            `json:"upstream,omitempty"`
	Exchange  string            `json:"exchange,omitempty"`
	Attempts  int               `json:"attempts,omitempty"`
	Price     string            `json:"price,omitempty"`
	Usage     map[string]int64  `json:"usage,omitempty"` // by unit
	Estimated bool              `json:"estimated,omitempty"`
	Capped    bool              `json:"capped,omitempty"`
	Tags      map[string]string `json:"tags,omitempty"`
	Key       string            `json:"key,omitempty"` // the id of the API key that the call was made with
}

func viewAccount(a account.Account) Account {
	return Account{ID: a.ID, Name: a.Name, Created: a.Created, Status: string(a.Status)}
}

func (a *API) viewBalance(b ledger.Balance) *Balance {
	return &Balance{Account: b.Account, Currency: a.config.Storage.Ledger.Currency(), Available: b.Available, Held: b.Held, Total: b.Total}
}

func viewEntry(e ledger.Entry) Entry {
	v := Entry{
		Seq: e.Seq, Time: e.Time, Kind: e.Kind.String(), From: e.From, To: e.To, Amount: e.Amount, Balance: e.Balance, Ref: e.Ref, Of: e.Of, Key: e.Key, Note: e.Note,
		Model: e.Model, Upstream: e.Upstream, Exchange: e.Exchange, Attempts: e.Attempts, Price: e.Price, Tags: e.Tags,
		Estimated: e.Usage.Estimated, Capped: e.Flags&ledger.Capped != 0,
	}
	for u, n := range e.Usage.Units {
		if n > 0 {
			if v.Usage == nil {
				v.Usage = map[string]int64{}
			}
			v.Usage[exchange.Unit(u).String()] = n
		}
	}
	return v
}

func (a *API) accounts(r *http.Request) (any, error) {
	list, err := a.config.Storage.Accounts.List(r.Context())
	if err != nil {
		return nil, err
	}
	out := make([]Account, 0, len(list))
	for _, acc := range list {
		v := viewAccount(acc)
		b, err := a.config.Storage.Ledger.Balance(r.Context(), acc.ID)
		if err != nil {
			return nil, err
		}
		v.Balance = a.viewBalance(b)
		out = append(out, v)
	}
	return out, nil
}

func (a *API) createAccount(r *http.Request) (any, error) {
	var in struct {
		Name string `json:"name"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	acc, err := a.config.Storage.Accounts.Create(r.Context(), in.Name)
	if err != nil {
		return nil, err
	}
	if err := a.config.Storage.Ledger.OpenAccount(r.Context(), acc.ID); err != nil {
		return nil, err
	}
	return viewAccount(acc), nil
}

func (a *API) account(r *http.Request) (any, error) {
	acc, err := a.config.Storage.Accounts.Get(r.Context(), r.PathValue("account"))
	if err != nil {
		return nil, err
	}
	v := viewAccount(acc)
	b, err := a.config.Storage.Ledger.Balance(r.Context(), acc.ID)
	if err != nil {
		return nil, err
	}
	v.Balance = a.viewBalance(b)
	return v, nil
}

func (a *API) enableAccount(r *http.Request) (any, error) {
	if err := a.config.Storage.Accounts.Enable(r.Context(), r.PathValue("account")); err != nil {
		return nil, err
	}
	return a.account(r)
}

func (a *API) disableAccount(r *http.Request) (any, error) {
	if err := a.config.Storage.Accounts.Disable(r.Context(), r.PathValue("account")); err != nil {
		return nil, err
	}
	return a.account(r)
}

func (a *API) balance(r *http.Request) (any, error) {
	b, err := a.config.Storage.Ledger.Balance(r.Context(), r.PathValue("account"))
	if err != nil {
		return nil, err
	}
	return a.viewBalance(b), nil
}

func (a *API) credit(r *http.Request) (any, error) {
	var in struct {
		Amount exchange.Amount `json:"amount"`
		Key    string          `json:"key"`
		Note   string          `json:"note"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if in.Key == "" {
		return nil, refuse(http.StatusBadRequest, "invalid", "A credit needs a key: the same key never credits twice.")
	}
	e, err := a.config.Storage.Ledger.Credit(r.Context(), r.PathValue("account"), in.Amount, in.Key, in.Note)
	if err != nil {
		return nil, err
	}
	return viewEntry(e), nil
}

// refund gives a charge back to the account that paid it, or a part of it.
func (a *API) refund(r *http.Request) (any, error) {
	var in struct {
		Charge string           `json:"charge"`
		Amount *exchange.Amount `json:"amount"` // without it the whole charge
		Key    string           `json:"key"`
		Note   string           `json:"note"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if in.Key == "" {
		return nil, refuse(http.StatusBadRequest, "invalid", "A refund needs a key: the same key never refunds twice.")
	}
	receipt, err := a.config.Storage.Ledger.Receipt(r.Context(), in.Charge)
	if errors.Is(err, ledger.ErrHold) || err == nil && receipt.Account != r.PathValue("account") {
		return nil, refuse(http.StatusNotFound, "not_found", "The account has no such charge.")
	}
	if err != nil {
		return nil, err
	}
	if in.Amount == nil {
		in.Amount = &receipt.Amount
	}
	e, err := a.config.Storage.Ledger.Refund(r.Context(), in.Charge, *in.Amount, in.Key, in.Note)
	if errors.Is(err, ledger.ErrInsufficient) {
		return nil, refuse(http.StatusConflict, "charge_exceeded", "Refunds can not be more than the charge was: %s.", err)
	}
	if err != nil {
		return nil, err
	}
	return viewEntry(e), nil
}

// maxEntries is the most entries of one page.
const maxEntries = 1000

func (a *API) entries(r *http.Request) (any, error) {
	q := r.URL.Query()
	from, limit := uint64(0), maxEntries
	if s := q.Get("from"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "invalid", "from is the number of an entry.")
		}
		from = n
	}
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxEntries {
			return nil, refuse(http.StatusBadRequest, "invalid", "limit is 1 to %d.", maxEntries)
		}
		limit = n
	}
	out := []Entry{}
	for e, err := range a.config.Storage.Ledger.Entries(r.Context(), r.PathValue("account"), from, limit) {
		if err != nil {
			return nil, err
		}
		out = append(out, viewEntry(e))
	}
	return out, nil
}

func (a *API) balances(r *http.Request) (any, error) {
	list, err := a.config.Storage.Ledger.Balances(r.Context())
	if err != nil {
		return nil, err
	}
	out := make([]*Balance, 0, len(list))
	for _, b := range list {
		out = append(out, a.viewBalance(b))
	}
	return out, nil
}

// Verification is the ledger's proof: everything stored was read again, and added up.
type Verification struct {
	OK        bool            `json:"ok"`
	Currency  string          `json:"currency"`
	Accounts  int             `json:"accounts"`
	Entries   uint64          `json:"entries"`
	Charges   uint64          `json:"charges"`
	Estimates uint64          `json:"estimates"`
	Credited  exchange.Amount `json:"credited"`
	Charged   exchange.Amount `json:"charged"`
	Served    exchange.Amount `json:"served"`
	Excess    exchange.Amount `json:"excess"` // served beyond what was held, and not charged
	Refunded  exchange.Amount `json:"refunded"`
	Adjusted  exchange.Amount `json:"adjusted"`
	Balance   exchange.Amount `json:"balance"`
	Intents   int             `json:"intents"`
	Held      exchange.Amount `json:"held"`
	Chain     string          `json:"chain"` // hash of the last entry
	Problems  []string        `json:"problems"`
	Omitted   int             `json:"omitted,omitempty"`
}

func (a *API) verify(r *http.Request) (any, error) {
	rep, err := a.config.Storage.Ledger.Verify(r.Context())
	if err != nil {
		return nil, err
	}
	return Verification{
		OK: rep.OK(), Currency: rep.Currency, Accounts: rep.Accounts, Entries: rep.Entries, Charges: rep.Charges, Estimates: rep.Estimates,
		Credited: rep.Credited, Charged: rep.Charged, Served: rep.Served, Excess: rep.Excess, Refunded: rep.Refunded, Adjusted: rep.Adjusted,
		Balance: rep.Balance, Intents: rep.Intents, Held: rep.Held, Chain: hex.EncodeToString(rep.Chain[:]), Problems: append([]string{}, rep.Problems...), Omitted: rep.Omitted,
	}, nil
}
