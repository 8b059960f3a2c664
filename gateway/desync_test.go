package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/desync"
	"github.com/postern-gateway/postern/gateway/desync/origin"
	"github.com/postern-gateway/postern/gateway/server"
	"github.com/postern-gateway/postern/gateway/telemetry"
)

// villainLane is the lane whose upstream is not to be trusted.
const villainLane = "villain"

func corpus(t *testing.T) []*desync.Case {
	t.Helper()
	list, err := desync.Read(os.DirFS(filepath.Join("desync", "testdata")))
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 300 {
		t.Errorf("the corpus has %d cases; it is to have 300 at least", len(list))
	}
	return list
}

// TestDesync plays the corpus of hostile and odd messages through a whole gateway, towards every origin: nobody may see
// another number of requests, another length or another path than the gateway did, and nobody gets another's answer.
func TestDesync(t *testing.T) {
	t.Parallel()
	cases := corpus(t)
	// A lane has a single connection to its origin, that the client of the case and another share.
	for _, lane := range lanes(t, 1, origin.Programs()...) {
		t.Run(lane.Name, func(t *testing.T) {
			t.Parallel()
			for _, c := range cases {
				if c.Hostile() != (lane.Villain != nil) {
					continue
				}
				t.Run(c.Name, func(t *testing.T) {
					for _, over := range c.Over {
						for _, fault := range lane.Run(t.Context(), c, over) {
							t.Errorf("over %s: %s", over, fault)
						}
					}
				})
			}
		})
	}
}

// TestDesyncTogether plays the corpus by many clients at a time, who share few connections to an origin and to a villain.
func TestDesyncTogether(t *testing.T) {
	t.Parallel()
	cases := corpus(t)
	for _, lane := range lanes(t, 3) {
		const clients = 6
		order := rand.New(rand.NewPCG(1, 2)).Perm(len(cases)) //nolint:gosec // the same order each time
		for i := range clients {
			twin := &desync.Lane{
				Name: fmt.Sprintf("%s-twin%d", lane.Name, i), Plain: lane.Plain, TLS: lane.TLS, Trust: lane.Trust,
				Tap: lane.Tap, Villain: lane.Villain, Record: lane.Record,
			}
			t.Run(twin.Name, func(t *testing.T) {
				t.Parallel()
				defer twin.Close()
				for n, j := range order {
					c := cases[j]
					if n%clients != i || c.Hostile() != (lane.Villain != nil) {
						continue
					}
					if c.Later != nil {
						continue // somebody else may have asked on that connection: then nobody can tell whose answer it is
					}
					for _, over := range c.Over {
						for _, fault := range twin.Run(t.Context(), c, over) {
							t.Errorf("%s over %s: %s", c.Name, over, fault)
						}
					}
				}
			})
		}
	}
}

// lanes starts origins and a gateway in front of them, with a listener and a tap for each, and a bound on the connections
// to it. When the test ends, what was seen on the way is held against what the gateway recorded.
func lanes(t *testing.T, connections int, programs ...string) []*desync.Lane {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	origins, err := origin.Start(ctx, t.TempDir(), programs...)
	var missing origin.Missing
	switch {
	case errors.As(err, &missing) && os.Getenv("CI") != "true":
		t.Logf("not tried with %s: sh .ci/tools installs them", strings.Join(missing, ", "))
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := origins.Stop(); err != nil {
			t.Error(err)
		}
	})
	villain := &desync.Villain{}
	record := &desync.Record{}
	var list []*desync.Lane
	var text strings.Builder
	text.WriteString("state \"badger\" {\n  dir = \"data\"\n}\n")
	for _, o := range append(origins.List, origin.Origin{Name: villainLane, Dial: villain.Dial}) {
		tap, err := desync.Listen(t.Context(), o.Dial, o.Name == villainLane)
		if err != nil {
			t.Fatal(err)
		}
		lane := &desync.Lane{Name: o.Name, Tap: tap, Record: record}
		if o.Name == villainLane {
			lane.Villain = villain
		}
		list = append(list, lane)
		// One connection more, for upgrades, which do not share.
		fmt.Fprintf(&text, desyncConfig, listenerOf(lane), tap.Address(), connections+1)
	}
	tel, err := telemetry.New(t.Context(), telemetry.Config{Output: record})
	if err != nil {
		t.Fatal(err)
	}
	n := startWith(t, workdir(t, map[string]string{"config.hcl": text.String()}), server.Config{Backends: backends(), Telemetry: tel})
	for _, lane := range list {
		lane.Plain = n.Addresses()[listenerOf(lane)].String()
		lane.TLS = n.Addresses()[listenerOf(lane)+"_tls"].String()
		lane.Trust = &tls.Config{RootCAs: n.roots}
	}
	t.Cleanup(func() {
		n.stop()
		for _, lane := range list {
			lane.Close()
			for _, fault := range slices.Concat(lane.Tap.Close(), lane.Audit(listenerOf(lane), listenerOf(lane)+"_tls")) {
				t.Errorf("%s: %s", lane.Name, fault)
			}
			got := lane.Tap.Totals()
			t.Logf("%s: %+v", lane.Name, got)
			if lane.Villain == nil && got.Connections > got.Requests/2 {
				t.Errorf("%s: %d connections for %d requests: nearly nothing shared one", lane.Name, got.Connections, got.Requests)
			}
		}
		for _, line := range record.Errors() {
			t.Errorf("the gateway logged an error: %s", line)
		}
	})
	return list
}

// listenerOf is the name of a lane's listener without TLS; the other's ends with _tls.
func listenerOf(l *desync.Lane) string { return strings.ReplaceAll(l.Name, "-", "_") }

// desyncConfig is one lane: its name, the tap's address, and the most connections.
const desyncConfig = `
listener "%[1]s" {
  address   = "127.0.0.1:0"
  protocols = [http1, http2]
}

listener "%[1]s_tls" {
  address   = "127.0.0.1:0"
  protocols = [http1, http2, http3]
  tls {
    self_signed = ["127.0.0.1"]
  }
}

upstream "%[1]s" {
  endpoints = ["http://%[2]s"]
  pool {
    connections  = %[3]d
    idle_timeout = "10m"
  }
  health {
    failures = 0
  }
}

route "%[1]s" {
  listener = [listener.%[1]s, listener.%[1]s_tls]
  match    = "/"
  upstream = upstream.%[1]s
}
`
