package world

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/fetch"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Asked is one fetch that a plugin made.
type Asked struct {
	Name    string
	Request *fetch.Request // nil when it was malformed
}

// String is the fetch as "name METHOD where", where being its URL, or the name of the upstream and the path.
func (a *Asked) String() string {
	if a.Request == nil {
		return a.Name
	}
	return a.Name + " " + a.Request.Method + " " + where(a.Request)
}

func where(r *fetch.Request) string {
	if r.URL != nil {
		return r.URL.String()
	}
	if r.Query != "" {
		return r.Upstream + " " + r.Path + "?" + r.Query
	}
	return r.Upstream + " " + r.Path
}

// Do answers fetches as the World was told: by their names, or else by where they lead. What it was told nothing about is
// unreachable.
func (w *World) Do(_ context.Context, calls []fetch.Call) (*fetch.Answers, error) {
	names, answers := make([]string, len(calls)), make([]fetch.Answer, len(calls))
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, c := range calls {
		names[i] = c.Name
		r, err := fetch.Read(slices.Clone(c.Value))
		w.asked = append(w.asked, Asked{Name: c.Name, Request: r})
		if err != nil {
			w.asked[len(w.asked)-1].Request = nil
			answers[i].Error = abi.FetchInvalid
			continue
		}
		told, ok := w.fetches[c.Name]
		if !ok {
			told, ok = w.fetches[where(r)]
		}
		switch {
		case !ok:
			answers[i].Error = abi.FetchUnreachable
		case told.Error != "":
			answers[i].Error = told.Error
		case int64(len(told.Body)) > r.Max:
			answers[i].Error = abi.FetchTooLarge
		default:
			answers[i] = told
			answers[i].Header = slices.Clone(told.Header)
			slices.SortStableFunc(answers[i].Header, func(a, b exchange.Field) int { return strings.Compare(a.Name, b.Name) })
		}
	}
	return &fetch.Answers{Value: fetch.Append(nil, names, answers)}, nil
}

// Tell adds answers to fetches, in the place of those of the same names.
func (w *World) Tell(answers map[string]fetch.Answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fetches = maps.Clone(w.fetches)
	if w.fetches == nil {
		w.fetches = map[string]fetch.Answer{}
	}
	maps.Copy(w.fetches, answers)
}

// Asked returns the fetches since it was last asked.
func (w *World) Asked() []Asked {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.asked
	w.asked = nil
	return list
}
