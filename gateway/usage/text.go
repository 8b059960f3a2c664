package usage

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"iter"
	"strconv"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// View is a record as it is shown: in JSON, and column by column.
type View struct {
	ID         string           `json:"id"`
	Time       time.Time        `json:"time"`
	Account    string           `json:"account"`
	Key        string           `json:"key,omitempty"`
	Route      string           `json:"route,omitempty"`
	Model      string           `json:"model,omitempty"`
	Status     int              `json:"status,omitempty"` // 0: not known
	Units      map[string]int64 `json:"units,omitempty"`
	Prompt     int64            `json:"prompt"` // tokens in
	Completion int64            `json:"completion"`
	Estimated  bool             `json:"estimated,omitempty"`
	Amount     exchange.Amount  `json:"amount"`
	Receipt    string           `json:"receipt,omitempty"`
	Took       float64          `json:"took_ms"`
	First      float64          `json:"first_ms"`
	Cut        bool             `json:"cut,omitempty"`       // the reply was broken off
	Completed  bool             `json:"completed,omitempty"` // made of the ledger's entry
}

// View returns the record as it is shown.
func (r *Record) View() View {
	v := View{
		ID: r.ID, Time: r.Time, Account: r.Account, Key: r.Key, Route: r.Route, Model: r.Model, Status: r.Status,
		Prompt: r.Usage.Prompt(), Completion: r.Usage.Completion(), Estimated: r.Usage.Estimated, Amount: r.Amount, Receipt: r.Receipt,
		Took: milliseconds(r.Took), First: milliseconds(r.First), Cut: r.Cut, Completed: r.Completed,
	}
	for u, n := range r.Usage.Units {
		if n > 0 {
			if v.Units == nil {
				v.Units = map[string]int64{}
			}
			v.Units[exchange.Unit(u).String()] = n
		}
	}
	return v
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Views yields records as they are shown.
func Views(records iter.Seq2[Record, error]) iter.Seq2[View, error] {
	return func(yield func(View, error) bool) {
		for r, err := range records {
			if !yield(r.View(), err) {
				return
			}
		}
	}
}

// SumView is a sum as it is shown.
type SumView struct {
	Account    string          `json:"account,omitempty"`
	Time       time.Time       `json:"time,omitzero"`
	Model      string          `json:"model,omitempty"`
	Key        string          `json:"key,omitempty"`
	Calls      int64           `json:"calls"`
	Errors     int64           `json:"errors"`
	Prompt     int64           `json:"prompt"` // tokens in
	Completion int64           `json:"completion"`
	Amount     exchange.Amount `json:"amount"`
	P50        float64         `json:"p50_ms"` // durations, at most an eighth off
	P95        float64         `json:"p95_ms"`
	P99        float64         `json:"p99_ms"`
}

// View returns the sum as it is shown.
func (s *Sum) View(account string) SumView {
	return SumView{
		Account: account, Time: s.Time, Model: s.Model, Key: s.Key, Calls: s.Calls, Errors: s.Errors, Prompt: s.Prompt, Completion: s.Completion, Amount: s.Amount,
		P50: milliseconds(s.Durations.Quantile(0.5)), P95: milliseconds(s.Durations.Quantile(0.95)), P99: milliseconds(s.Durations.Quantile(0.99)),
	}
}

// WriteSums writes sums as WriteCSV does records.
func WriteSums(w io.Writer, sums []SumView) error {
	c := csv.NewWriter(w)
	c.UseCRLF = true
	rows := [][]string{{"account", "time", "model", "key", "calls", "errors", "prompt", "completion", "amount", "p50_ms", "p95_ms", "p99_ms"}}
	for _, s := range sums {
		at := ""
		if !s.Time.IsZero() {
			at = s.Time.Format(time.RFC3339)
		}
		row := []string{Cell(s.Account), at, Cell(s.Model), Cell(s.Key)}
		for _, n := range []int64{s.Calls, s.Errors, s.Prompt, s.Completion} {
			row = append(row, strconv.FormatInt(n, 10))
		}
		row = append(row, s.Amount.String())
		for _, ms := range []float64{s.P50, s.P95, s.P99} {
			row = append(row, strconv.FormatFloat(ms, 'f', 3, 64))
		}
		rows = append(rows, row)
	}
	return c.WriteAll(rows)
}

// WriteJSONL writes records as JSON Lines, one object a line, as they come. Its error is the first of the records or of w.
func WriteJSONL(w io.Writer, records iter.Seq2[View, error]) error {
	e := json.NewEncoder(w)
	for v, err := range records {
		if err == nil {
			err = e.Encode(v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// WriteCSV writes records as CSV (RFC 4180) with a line of names, as they come. A text that a spreadsheet would take for a
// formula has an apostrophe before it. Its error is the first of the records or of w.
func WriteCSV(w io.Writer, records iter.Seq2[View, error]) error {
	c := csv.NewWriter(w)
	c.UseCRLF = true
	names := []string{"time", "id", "account", "key", "route", "model", "status", "prompt", "completion", "estimated", "amount", "receipt", "took_ms", "first_ms", "cut", "completed"}
	for u := range exchange.UnitCount {
		names = append(names, "unit_"+u.String())
	}
	if err := c.Write(names); err != nil {
		return err
	}
	for v, err := range records {
		if err != nil {
			c.Flush()
			return err
		}
		row := []string{
			v.Time.Format("2006-01-02T15:04:05.000000Z"), Cell(v.ID), Cell(v.Account), Cell(v.Key), Cell(v.Route), Cell(v.Model), strconv.Itoa(v.Status),
			strconv.FormatInt(v.Prompt, 10), strconv.FormatInt(v.Completion, 10), strconv.FormatBool(v.Estimated), v.Amount.String(), Cell(v.Receipt),
			strconv.FormatFloat(v.Took, 'f', 3, 64), strconv.FormatFloat(v.First, 'f', 3, 64), strconv.FormatBool(v.Cut), strconv.FormatBool(v.Completed),
		}
		for u := range exchange.UnitCount {
			row = append(row, strconv.FormatInt(v.Units[u.String()], 10))
		}
		if err := c.Write(row); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

// Cell is a text for a cell of CSV: one that a spreadsheet would take for a formula (it begins with = + - @, a tab, a
// carriage return or a line feed) gets an apostrophe before it.
func Cell(s string) string {
	if s != "" {
		switch s[0] {
		case '=', '+', '-', '@', '\t', '\r', '\n':
			return "'" + s
		}
	}
	return s
}
