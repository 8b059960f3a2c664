// Package site is what a configuration says of the console: its main type is Config, read from the block console.
package site

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/schema"
)

// Config is the block console, read. The zero value is of no use; without the block, Read gives its defaults.
type Config struct {
	Title     string            // what the pages call the service, default "Postern", at most 60 characters
	URL       string            // scheme://host[:port] that people use; links to the console are made of it. Empty: the listener's own address
	Hosts     []string          // names it is reached by besides URL's, lower case, without ports
	Operators []netip.Prefix    // networks from which operators may sign in; default: loopback. Empty: none
	Session   time.Duration     // how long an operator stays signed in, default 8h, 5m to 24h
	Terms     map[string][]Part // of use, by language; all languages or none
	Range     hcl.Range
}

// Part is a paragraph of the terms, or a heading.
type Part struct {
	Heading bool
	Text    string
}

// Languages are those that the pages are written in, by the codes that addresses and cookies have.
func Languages() []string { return []string{"en", "zh"} }

// maxTitle bounds Title, in characters.
const maxTitle = 60

// Read reads the block. What is wrong goes to errors.
func Read(s *schema.Section, errorf func(at hcl.Range, summary, detail string, arguments ...any)) *Config {
	c := &Config{Title: s.Text("title"), Session: s.Span("session"), Range: s.At}
	if n := len([]rune(c.Title)); n == 0 || n > maxTitle {
		errorf(s.Where("title"), "Invalid title", "title must have 1 to %d characters.", maxTitle)
	}
	if text := s.Text("url"); text != "" {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			errorf(s.Where("url"), "Invalid URL", "url must be a scheme and a host and nothing more, such as \"https://console.example.com\".")
		} else {
			c.URL = u.Scheme + "://" + strings.ToLower(u.Host)
			c.Hosts = append(c.Hosts, strings.ToLower(u.Hostname()))
		}
	}
	for _, h := range s.Texts("hosts") {
		name := strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(h, "["), "]"))
		if _, err := netip.ParseAddr(name); err != nil && (name == "" || strings.ContainsAny(name, ":/*@ ?#")) {
			errorf(s.Where("hosts"), "Invalid host", "hosts are names or addresses without scheme and port, such as \"console.example.com\"; %q is none.", h)
			continue
		}
		c.Hosts = append(c.Hosts, name)
	}
	networks := []string{"127.0.0.0/8", "::1/128"}
	if s.Set("operators") {
		networks = s.Texts("operators")
	}
	for _, text := range networks {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			errorf(s.Where("operators"), "Invalid network", "operators are networks such as \"10.0.0.0/8\"; %q is none.", text)
			continue
		}
		c.Operators = append(c.Operators, p.Masked())
	}
	if s.Set("terms") {
		c.Terms = map[string][]Part{}
		for _, e := range s.Table("terms") {
			if !slices.Contains(Languages(), e.Key) {
				errorf(e.At, "Unknown language", "The pages are written in %s; %q is none of them.", strings.Join(Languages(), " and "), e.Key)
				continue
			}
			var text []Part
			if e.Value.IsKnown() { // a variable's text is not, while the files are only checked
				if text = parts(e.Value.AsString()); text == nil {
					continue
				}
			}
			c.Terms[e.Key] = text
		}
		for _, l := range Languages() {
			if _, given := c.Terms[l]; !given {
				errorf(s.Where("terms"), "Missing language", "terms are given in every language of the pages, and there is nothing in %q.", l)
			}
		}
	}
	return c
}

// parts reads a text: paragraphs stand apart by an empty line, and "# " begins a heading.
func parts(text string) (list []Part) {
	for p := range strings.SplitSeq(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n") {
		p = strings.TrimSpace(p)
		if heading, ok := strings.CutPrefix(p, "# "); ok {
			heading, rest, _ := strings.Cut(heading, "\n")
			list = append(list, Part{Heading: true, Text: heading})
			p = strings.TrimSpace(rest)
		}
		if p != "" {
			list = append(list, Part{Text: p})
		}
	}
	return list
}

// Answers reports whether the console is reached by authority, which is host[:port]. Loopback names and addresses are always
// among them; another name could be anybody's who has it point here. The port says nothing.
func (c *Config) Answers(authority string) bool {
	host := authority
	if h, _, err := net.SplitHostPort(authority); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if host == "localhost" || slices.Contains(c.Hosts, host) {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// Operator reports whether operators may sign in from an address.
func (c *Config) Operator(from netip.Addr) bool {
	from = from.Unmap()
	return slices.ContainsFunc(c.Operators, func(p netip.Prefix) bool { return p.Contains(from) })
}
