package exchange

import "encoding/json"

// Receipt is what one call cost and why.
type Receipt struct {
	ID      string
	Entry   uint64 // the number of the ledger's entry
	Account string
	Model   string
	Usage   Usage
	Price   string // names the price row that applied
	Amount  Amount
	Balance Amount // what is left and not held
}

// JSON writes the receipt as callers see it: all but the account.
func (r *Receipt) JSON() []byte {
	units := make(map[string]int64)
	for u, n := range r.Usage.Units {
		if n != 0 {
			units[Unit(u).String()] = n
		}
	}
	doc, err := json.Marshal(struct {
		ID        string           `json:"id"`
		Model     string           `json:"model"`
		Units     map[string]int64 `json:"units"`
		Estimated bool             `json:"estimated"`
		Price     string           `json:"price"`
		Amount    Amount           `json:"amount"`
		Balance   Amount           `json:"balance"`
	}{r.ID, r.Model, units, r.Usage.Estimated, r.Price, r.Amount, r.Balance})
	if err != nil {
		panic(err) // strings, numbers and amounts can always be written
	}
	return doc
}
