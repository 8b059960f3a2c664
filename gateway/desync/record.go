package desync

import (
	"bytes"
	"encoding/json"
	"slices"
	"sync"
)

// Record is where Postern's log goes, in JSON. It keeps the lines about exchanges.
type Record struct {
	mu      sync.Mutex
	rest    []byte
	entries []entry
}

// entry is one exchange as Postern saw it.
type entry struct {
	Message  string `json:"msg"`
	Level    string `json:"level"`
	ID       string `json:"exchange"`
	Listener string `json:"listener"`
	Status   int    `json:"status"`
	Attempts int    `json:"attempts"`
	Problem  string `json:"problem"`
	text     string
}

// Write takes the log's octets.
func (r *Record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rest = append(r.rest, p...)
	for {
		line, rest, ok := bytes.Cut(r.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		r.rest = rest
		var e entry
		if json.Unmarshal(line, &e) == nil {
			e.text = string(line)
			r.entries = append(r.entries, e)
		}
	}
}

// of is the exchanges of some listeners by their ids.
func (r *Record) of(listeners []string) map[string][]entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string][]entry{}
	for _, e := range r.entries {
		if e.Message == "exchange" && slices.Contains(listeners, e.Listener) {
			all[e.ID] = append(all[e.ID], e)
		}
	}
	return all
}

// Errors are the lines that report a fault of Postern's own: no client and no upstream may bring one about.
func (r *Record) Errors() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, e := range r.entries {
		if e.Level == "ERROR" {
			all = append(all, e.text)
		}
	}
	return all
}
