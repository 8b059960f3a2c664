//go:build linux

package main

import (
	"fmt"

	"github.com/postern-gateway/postern/gateway/bench/record"
	"github.com/postern-gateway/postern/gateway/bench/wire"
)

// direct is the name of the row without a proxy.
const direct = "none"

// cell is one load that several proxies are put under.
type cell struct {
	Name, Title string
	Job         wire.Job
	Rate        float64 // for latencies: well below what the slowest of the usual proxies can do
	Peers       []string
}

func (c cell) unit() string {
	if c.Job.Events {
		return "event"
	}
	return "request"
}

// question is a chat request of about half a KiB.
const question = `{"model":"small","messages":[{"role":"system","content":"You are a helpful assistant who answers briefly, in plain words, and says so when the answer is not known."},` +
	`{"role":"user","content":"What does a gateway do, and what does it cost me for each request that goes through it?"},{"role":"assistant","content":"It passes requests on, and costs a few microseconds."},` +
	`{"role":"user","content":"Where do those go?"}],"temperature":0.2,"max_tokens":256,"stream":false,"user":"customer-1184"}`

// cells lists what is measured, in this order.
func cells() []cell {
	general := []string{direct, "nginx", "haproxy", "caddy", "envoy", "postern"}
	get := func(p wire.Protocol, path string, length int) wire.Job {
		j := wire.Job{Protocol: p, Path: path, Length: length, Conns: 64, Streams: 1}
		if p == wire.HTTP2 || p == wire.HTTP3 {
			j.Conns, j.Streams = 8, 8
		}
		return j
	}
	chat := wire.Job{Protocol: wire.HTTP1, Method: "POST", Path: "/v1" + wire.PathChat, Body: []byte(question), Length: -1, Marker: wire.MarkChat, Conns: 64, Streams: 1,
		Header: [][2]string{{"content-type", "application/json"}}}
	small, large := 1<<10, 64<<10
	return []cell{
		{Name: "h1-1k", Title: "HTTP/1.1, 1 KiB", Job: get(wire.HTTP1, wire.Path1K, small), Rate: 2000, Peers: general},
		{Name: "h1-64k", Title: "HTTP/1.1, 64 KiB", Job: get(wire.HTTP1, wire.Path64K, large), Rate: 1000, Peers: general},
		{Name: "tls-1k", Title: "HTTP/1.1 over TLS, 1 KiB", Job: get(wire.TLS, wire.Path1K, small), Rate: 2000, Peers: general[1:]},
		{Name: "tls-64k", Title: "HTTP/1.1 over TLS, 64 KiB", Job: get(wire.TLS, wire.Path64K, large), Rate: 1000, Peers: general[1:]},
		{Name: "h2-1k", Title: "HTTP/2 over TLS, 1 KiB", Job: get(wire.HTTP2, wire.Path1K, small), Rate: 2000, Peers: general[1:]},
		{Name: "h2-64k", Title: "HTTP/2 over TLS, 64 KiB", Job: get(wire.HTTP2, wire.Path64K, large), Rate: 500, Peers: general[1:]},
		{Name: "h3-1k", Title: "HTTP/3, 1 KiB", Job: get(wire.HTTP3, wire.Path1K, small), Rate: 1000, Peers: []string{"caddy", "postern"}},
		{Name: "h3-64k", Title: "HTTP/3, 64 KiB", Job: get(wire.HTTP3, wire.Path64K, large), Rate: 200, Peers: []string{"caddy", "postern"}},
		{Name: "sse", Title: "Server-sent events over HTTP/1.1", Rate: 2000, Peers: general,
			Job: wire.Job{Protocol: wire.HTTP1, Path: wire.PathEvents, Events: true, Length: -1, Conns: 64, Streams: 1}},
		{Name: "policies", Title: "Chat completion through 0, 1 and 4 policies, HTTP/1.1", Job: chat, Rate: 1500, Peers: []string{"nginx", "caddy", "envoy", "envoy+1", "postern", "postern+1", "postern+4"}},
		{Name: "model", Title: "Governed chat completion (auth, hold, route, settle, usage), HTTP/1.1", Job: chat, Rate: 100, Peers: []string{direct, "fasthttp", "litellm", "portkey", "postern+4"}},
	}
}

// columns are the proxies of the summary's table.
func columns() []string { return []string{"postern", "nginx", "haproxy", "caddy", "envoy"} }

func order() (names []string) {
	for _, c := range cells() {
		names = append(names, c.Name)
	}
	return names
}

// targets is what Postern is to reach, as shares of what others need in the same cell and rounds.
func targets() []record.Target {
	cpu := func(cell, peer, against string, atMost float64) record.Target {
		return record.Target{Cell: cell, Metric: record.CPU, Peer: peer, Against: against, AtMost: atMost}
	}
	list := []record.Target{
		cpu("h1-1k", "postern", "nginx", 1.1), cpu("h1-1k", "postern", "caddy", 0.2), cpu("tls-1k", "postern", "nginx", 1.1), cpu("h1-64k", "postern", "nginx", 1.2),
		cpu("policies", "postern+4", "caddy", 0.4),
	}
	for _, size := range []string{"1k", "64k"} {
		list = append(list, cpu(fmt.Sprintf("h2-%s", size), "postern", "caddy", 0.4), cpu(fmt.Sprintf("h3-%s", size), "postern", "caddy", 0.6))
	}
	return append(list, cpu("sse", "postern", "caddy", 1.0), cpu("sse", "postern", "nginx", 1.4),
		cpu("model", "postern+4", "litellm", 0.03), cpu("model", "postern+4", "portkey", 0.03), cpu("model", "postern+4", "fasthttp", 0.8),
		record.Target{Cell: "h1-1k", Metric: record.Rest, Peer: "postern", Against: "caddy", AtMost: 0.6})
}
