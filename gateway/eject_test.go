package main

import (
	"net/http"
	"strings"
	"testing"
)

// TestEjectedIsBetterThanNothing: a model whose only upstream was ejected for failures is tried all the same, and serves
// as soon as the upstream does.
func TestEjectedIsBetterThanNothing(t *testing.T) {
	t.Parallel()
	dir := workdir(t, nil)
	replaceIn(t, dir+"/config.hcl", `  balance   = least_request
`, `  balance   = least_request

  retry {
    attempts = 1
  }

  health {
    failures = 2
    eject    = "10m"
  }
`)
	n := startIn(t, dir)
	_, key := n.customer(t, "10")
	c := n.client(t, "http1")
	failing := strings.Replace(hello, `"user"`, `"user","name":"x"`, 1)
	n.origin.Config.Handler = refuseWith(http.StatusBadGateway, n.sandbox, 3)
	for range 3 {
		if resp, body := n.post(t, c, "/v1/chat/completions", key, failing); resp.StatusCode != http.StatusBadGateway && resp.StatusCode != http.StatusServiceUnavailable {
			t.Fatal(resp.Status, body)
		}
	}
	ejected := false
	for _, e := range n.Upstreams()["sandbox"] {
		ejected = ejected || !e.Usable
	}
	if !ejected {
		t.Fatalf("nothing was ejected: %+v", n.Upstreams())
	}
	if resp, body := n.post(t, c, "/v1/chat/completions", key, hello); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, body)
	}
	n.verify(t)
}

// refuseWith answers the first requests with a status, and gives the others to next.
func refuseWith(status int, next http.Handler, times int) http.Handler {
	left := make(chan struct{}, times)
	for range times {
		left <- struct{}{}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-left:
			w.WriteHeader(status)
		default:
			next.ServeHTTP(w, r)
		}
	})
}
