package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"
)

// callTime bounds one call of a Client; a verification reads all that is stored.
const callTime = 5 * time.Minute

// maxAnswer bounds an answer, in octets.
const maxAnswer = 64 << 20

// Client calls an API: over the network, or in this process.
type Client struct {
	base  string
	token string
	do    func(*http.Request) (status int, body []byte, err error)
	close func() error
}

// NewClient calls the API of a running gateway at address, which is host:port.
func NewClient(address, token string) *Client {
	client := &http.Client{Timeout: callTime}
	return &Client{
		base: "http://" + address, token: token,
		do: func(r *http.Request) (int, []byte, error) {
			resp, err := client.Do(r)
			if err != nil {
				return 0, nil, fmt.Errorf("no gateway answers at the admin address %s (%w): is it running, with this configuration?", address, reason(err))
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
			if err != nil {
				return 0, nil, fmt.Errorf("read the gateway's answer: %w", err)
			}
			return resp.StatusCode, body, nil
		},
		close: func() error { client.CloseIdleConnections(); return nil },
	}
}

// reason is an error without the URL that the client put before it.
func reason(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// Local returns a client of a itself, for acting on a store that no gateway has open. Closing it closes the storage.
func (a *API) Local() *Client {
	return &Client{
		base: "http://local", token: a.config.Token,
		do: func(r *http.Request) (int, []byte, error) {
			w := &answered{header: http.Header{}, status: http.StatusOK}
			a.ServeHTTP(w, r)
			return w.status, w.body.Bytes(), nil
		},
		close: a.config.Storage.Close,
	}
}

// answered keeps what a handler answers.
type answered struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *answered) Header() http.Header         { return w.header }
func (w *answered) WriteHeader(status int)      { w.status = status }
func (w *answered) Write(b []byte) (int, error) { return w.body.Write(b) }

// Call makes one call with in as its JSON body (nil: none) and reads the answer into out (nil: it is dropped). What the
// API refuses is a *Problem, an error with the API's own words.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader = http.NoBody
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	if uid := os.Getuid(); uid >= 0 {
		r.Header.Set(userHeader, strconv.Itoa(uid))
	}
	status, answer, err := c.do(r)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		p := new(Problem)
		if json.Unmarshal(answer, p) == nil && p.Detail != "" {
			return p
		}
		return fmt.Errorf("the gateway answered %d", status)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read the gateway's answer: %w", err)
	}
	return nil
}

// Close ends the client.
func (c *Client) Close() error { return c.close() }
