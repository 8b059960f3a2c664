package fetch

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/fetch/origin"
	"github.com/postern-gateway/postern/gateway/route"
	"github.com/postern-gateway/postern/sdk/abi"
)

// Bounds of a request.
const (
	maxURL     = 8 << 10
	maxName    = 64 // of an upstream
	maxMethod  = 32
	maxFields  = 64
	maxHead    = 64 << 10 // octets of a request's or an answer's fields
	maxAge     = 24 * time.Hour
	defaultMax = 64 << 10
)

// Request is a plugin's request, in order by itself. Whether it is allowed is another matter.
type Request struct {
	URL      *url.URL // nil: to an upstream
	Origin   string   // of URL, "scheme://host:port" as in package origin
	Upstream string
	Path     string // to an upstream: escaped, begins with "/"
	Query    string // to an upstream: raw, without "?"
	Method   string
	Header   exchange.Header
	Body     []byte
	Timeout  time.Duration // 0: the plugin's
	Cache    time.Duration // 0: not cached
	Max      int64
}

// Read takes a request out of its value and checks it whole. Body points into value.
func Read(value []byte) (*Request, error) {
	v, rest, ok := abi.ReadValue(value)
	if !ok || len(rest) > 0 || v.Kind() != abi.KindObject || len(value) > abi.MaxFetch {
		return nil, fmt.Errorf("the request is not one object of at most %d octets", abi.MaxFetch)
	}
	r := &Request{Method: "GET", Max: defaultMax}
	var address, path string
	var to, at, seen bool
	for key, m := range v.Each {
		var err error
		switch string(key) {
		case "url":
			address, err = text(key, m, maxURL)
			to = to || m.Kind() != abi.KindNull
		case "upstream":
			r.Upstream, err = text(key, m, maxName)
			at = at || m.Kind() != abi.KindNull
		case "path":
			path, err = text(key, m, maxURL)
			seen = seen || m.Kind() != abi.KindNull
		case "method":
			if m.Kind() != abi.KindNull {
				r.Method, err = text(key, m, maxMethod)
			}
		case "headers":
			r.Header, err = fields(m)
		case "body":
			if r.Body = m.Bytes(); m.Kind() != abi.KindString && m.Kind() != abi.KindNull {
				err = errors.New("body is not a string")
			}
		case "timeout":
			r.Timeout, err = span(key, m)
		case "cache":
			r.Cache, err = span(key, m)
		case "max":
			if m.Kind() != abi.KindNull {
				if r.Max = m.Int(); m.Kind() != abi.KindInt || r.Max < 0 || r.Max > abi.MaxFetched {
					err = fmt.Errorf("max is not a number from 0 to %d", abi.MaxFetched)
				}
			}
		default:
			err = fmt.Errorf("there is no member %q", key)
		}
		if err != nil {
			return nil, err
		}
	}
	switch {
	case to == at:
		return nil, errors.New("either url or upstream says where the request goes")
	case seen && to:
		return nil, errors.New("path goes with upstream")
	case r.Cache > maxAge:
		return nil, fmt.Errorf("cache is longer than %s", maxAge)
	case strings.Trim(r.Method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" || r.Method == "" || r.Method == "CONNECT" || r.Method == "TRACE":
		return nil, fmt.Errorf("the method %q can not be used", r.Method)
	case len(r.Body) > 0 && (r.Method == "GET" || r.Method == "HEAD"):
		return nil, fmt.Errorf("%s has no body", r.Method)
	case to:
		return r, r.address(address)
	}
	return r, r.path(path)
}

// where is what a log may say of where the request goes: its path and its fields may hold secrets.
func (r *Request) where() string {
	if r.URL == nil {
		return "upstream." + r.Upstream
	}
	return r.Origin
}

// address reads where a URL leads.
func (r *Request) address(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("the URL is malformed") // what the parser says would repeat it
	}
	at, err := origin.Of(u)
	switch {
	case err != nil:
		return fmt.Errorf("the URL leads nowhere: %w", err)
	case strings.ContainsRune(raw, '#'):
		return errors.New("the URL has a fragment")
	case !httpguts.ValidHostHeader(u.Host) || !printable(u.EscapedPath()) || !printable(u.RawQuery):
		return errors.New("the URL holds what can not be sent")
	}
	// What is sent is the origin that was compared, not another way to write it; browsers leave its usual port out.
	bare := strings.TrimSuffix(at.Host, ":443")
	if at.Scheme == "http" {
		bare = strings.TrimSuffix(at.Host, ":80")
	}
	r.Origin = at.String()
	r.URL = &url.URL{Scheme: at.Scheme, Host: bare, Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}
	if r.URL.Path == "" {
		r.URL.Path = "/"
	}
	return nil
}

// path reads where at an upstream the request goes. Its path has the one form that requests are forwarded in, so that it can not
// lead out of an endpoint's base path.
func (r *Request) path(raw string) (err error) {
	path, query, _ := strings.Cut(raw, "?")
	if path == "" && query == "" {
		path = "/"
	}
	if r.Path, err = route.Canonical(path); err != nil {
		return fmt.Errorf("the path is malformed: %w", err)
	}
	if !printable(query) || strings.ContainsRune(query, '#') {
		return errors.New("the query is malformed")
	}
	r.Query = query
	return nil
}

// printable: ASCII without control characters and spaces, so that it can stand in a request line.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f })
}

func text(key []byte, v abi.Value, most int) (string, error) {
	if v.Kind() == abi.KindNull {
		return "", nil
	}
	if b := v.Bytes(); v.Kind() == abi.KindString && len(b) <= most {
		return string(b), nil
	}
	return "", fmt.Errorf("%s is not a string of at most %d octets", key, most)
}

func span(key []byte, v abi.Value) (time.Duration, error) {
	if v.Kind() == abi.KindNull {
		return 0, nil
	}
	if n := v.Int(); v.Kind() == abi.KindInt && n >= 0 {
		return time.Duration(n), nil
	}
	return 0, fmt.Errorf("%s is not a number of nanoseconds", key)
}

// fields reads the fields of a request: none that frames or routes it, and none twice.
func fields(v abi.Value) (exchange.Header, error) {
	if v.Kind() == abi.KindNull {
		return nil, nil
	}
	if v.Kind() != abi.KindObject || v.Len() > maxFields {
		return nil, fmt.Errorf("headers is not an object of at most %d strings", maxFields)
	}
	h := make(exchange.Header, 0, v.Len())
	size := 0
	for key, m := range v.Each {
		name, value := string(key), m.Text()
		switch size += len(name) + len(value); {
		case m.Kind() != abi.KindString || len(value) > abi.MaxHeader || size > maxHead:
			return nil, fmt.Errorf("header %q is not a string, or too long", name)
		case len(name) > 256 || !httpguts.ValidHeaderFieldName(name) || name != strings.ToLower(name):
			return nil, fmt.Errorf("header name %q is not a lower-case token", name)
		case exchange.Framing(name) || name == "expect" || name == "proxy-authorization":
			return nil, fmt.Errorf("header %s is the gateway's own", name)
		case !httpguts.ValidHeaderFieldValue(value) || strings.Trim(value, " \t") != value:
			return nil, fmt.Errorf("the value of header %s is no field value", name)
		case h.Count(name) > 0:
			return nil, fmt.Errorf("header %s stands twice", name)
		}
		h.Add(name, value)
	}
	return h, nil
}

// key is what the same requests have in common. It holds nothing of them that could be read.
type key [sha256.Size]byte

func (r *Request) key() key {
	to := r.Origin
	what := r.Path + "?" + r.Query
	if r.URL != nil {
		what = r.URL.RequestURI()
	}
	b := abi.AppendString(nil, to)
	for _, s := range []string{r.Upstream, what, r.Method} {
		b = abi.AppendString(b, s)
	}
	b = abi.AppendInt(b, r.Max)
	sorted := slices.SortedFunc(slices.Values(r.Header), func(x, y exchange.Field) int { return strings.Compare(x.Name, y.Name) })
	for _, f := range sorted {
		b = abi.AppendString(abi.AppendString(b, f.Name), f.Value)
	}
	return sha256.Sum256(append(append(b, 0), r.Body...))
}
