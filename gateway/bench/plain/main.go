// Command plain is what a team writes in an afternoon: a model gateway on fasthttp that knows a key, decodes the request and the
// reply with the standard library, and adds up what was used in memory. It is measured beside Postern, which does the same and keeps
// money that must not be lost.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// request is what of a chat request matters to a gateway; the rest is passed on as it came.
type request struct {
	Model    string `json:"model"`
	Messages []struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	} `json:"messages"`
	MaxTokens int    `json:"max_tokens"`
	Stream    bool   `json:"stream"`
	User      string `json:"user"`
}

// reply is what of a chat completion matters.
type reply struct {
	ID      string `json:"id"`
	Model   string `json:"model"`
	Choices []struct {
		Message struct {
			Role    string `json:"role"`
			Content string `json:"content"`
		} `json:"message"`
		FinishReason string `json:"finish_reason"`
	} `json:"choices"`
	Usage struct {
		PromptTokens     int64 `json:"prompt_tokens"`
		CompletionTokens int64 `json:"completion_tokens"`
	} `json:"usage"`
}

// gateway is the whole of it.
type gateway struct {
	key    []byte
	models map[string]string
	origin string
	client *fasthttp.HostClient

	mu      sync.Mutex
	balance int64 // in millionths of a cent
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "the `address` to listen on")
	origin := flag.String("origin", "127.0.0.1:9000", "the origin's `address`")
	key := flag.String("key", "", "the `key` that callers present")
	flag.Parse()
	g := &gateway{
		key: []byte("Bearer " + *key), models: map[string]string{"small": "gpt-4o-mini"}, origin: "http://" + *origin, balance: 1 << 60,
		client: &fasthttp.HostClient{Addr: *origin, MaxConns: 1024, MaxIdleConnDuration: time.Minute, ReadTimeout: time.Minute, WriteTimeout: time.Minute},
	}
	server := &fasthttp.Server{Handler: g.serve, ReadTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: time.Minute}
	if err := server.ListenAndServe(*listen); err != nil {
		fmt.Fprintln(os.Stderr, "plain:", err)
		os.Exit(1)
	}
}

func (g *gateway) serve(c *fasthttp.RequestCtx) {
	if !bytes.Equal(c.Request.Header.Peek("Authorization"), g.key) {
		c.Error("who are you?", fasthttp.StatusUnauthorized)
		return
	}
	var asked request
	if err := json.Unmarshal(c.PostBody(), &asked); err != nil {
		c.Error("this is no chat request", fasthttp.StatusBadRequest)
		return
	}
	target, ok := g.models[asked.Model]
	if !ok {
		c.Error("there is no such model", fasthttp.StatusNotFound)
		return
	}
	most := int64(asked.MaxTokens)*60 + int64(len(c.PostBody()))*15
	if !g.charge(most) {
		c.Error("there is no money left", fasthttp.StatusPaymentRequired)
		return
	}
	// The model's name is replaced in place; the body is not encoded anew.
	body := bytes.Replace(c.PostBody(), []byte(`"model":"`+asked.Model+`"`), []byte(`"model":"`+target+`"`), 1)
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.SetRequestURI(g.origin)
	req.URI().SetPathBytes(c.Path())
	req.Header.SetMethod(fasthttp.MethodPost)
	req.Header.SetContentType("application/json")
	req.Header.Set("Authorization", "Bearer sk-origin")
	req.SetBody(body)
	if err := g.client.DoTimeout(req, resp, time.Minute); err != nil {
		g.charge(-most)
		c.Error("the provider does not answer", fasthttp.StatusBadGateway)
		return
	}
	var got reply
	if err := json.Unmarshal(resp.Body(), &got); err != nil {
		g.charge(-most)
		c.Error("the provider's answer can not be read", fasthttp.StatusBadGateway)
		return
	}
	g.charge(got.Usage.PromptTokens*15 + got.Usage.CompletionTokens*60 - most)
	c.SetStatusCode(resp.StatusCode())
	c.SetContentTypeBytes(resp.Header.ContentType())
	c.SetBody(resp.Body())
}

// charge takes an amount, or gives it back where it is negative.
func (g *gateway) charge(amount int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.balance < amount {
		return false
	}
	g.balance -= amount
	return true
}
