package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/net/idna"

	"github.com/postern-gateway/postern/gateway/schema"
)

// fetchGrant is the capability that a fetch block is for.
const fetchGrant = "fetch"

// fetchBlock reads where a plugin may send requests; the block and the grant need each other. That a grant itself is missing
// or useless is said elsewhere.
func (l *loader) fetchBlock(p *Plugin, s *schema.Section) {
	granted, asks, b := slices.Contains(p.Grants, fetchGrant), p.Manifest.Asks(fetchGrant), s.One("fetch")
	switch {
	case asks && granted && !b.Given:
		l.Errorf(s.Where("grants"), "Missing fetch block", "The plugin may send requests, and nothing says where to. Add a block such as fetch { origins = [\"https://auth.example.com\"] }.")
		return
	case !asks && !granted && b.Given:
		l.Errorf(b.At, "Useless fetch block", "The plugin does not ask for fetch, so it sends no requests. Remove the block.")
		return
	case !granted || !b.Given:
		return
	}
	p.Fetch = PluginFetch{
		Origins: l.origins(b), Timeout: b.Span("timeout"), Concurrent: int(b.Count("concurrent")), Cache: b.Size("cache"), Range: b.At,
	}
	if e := b.Expr("upstreams"); e != nil {
		p.Fetch.Upstreams = schema.ReferAll(l.Findings, &l.upstreams, e)
	}
	if none(b.Expr("origins")) && none(b.Expr("upstreams")) {
		l.Errorf(b.At, "Nowhere to fetch", "The block names neither origins nor upstreams, so every request would be refused. Name one, or take the grant fetch away.")
	}
}

func none(e hcl.Expression) bool { return e == nil || schema.IsEmpty(e) }

func (l *loader) origins(s *schema.Section) []FetchOrigin {
	const must = `a list of URLs such as "https://auth.example.com", or of { url = "...", private = true, ca = "ca.pem" }`
	var list []FetchOrigin
	for _, e := range s.Entries("origins", must) {
		text, origin := "", FetchOrigin{}
		switch t := e.Value.Type(); {
		case schema.Textual(e.Value):
			text = e.Value.AsString()
		case t.IsObjectType():
			var wrong bool
			for name := range t.AttributeTypes() {
				v := e.Value.GetAttr(name)
				switch {
				case name == "url" && schema.Textual(v):
					text = v.AsString()
				case name == "private" && v.Type() == cty.Bool && v.IsKnown() && !v.IsNull():
					origin.Private = v.True()
				case name == "ca" && schema.Textual(v):
					origin.CA = l.absolute(v.AsString())
				default:
					wrong = true
				}
			}
			if wrong || text == "" {
				l.Errorf(e.At, "Invalid origin", "origins must be %s.", must)
				continue
			}
		default:
			l.Errorf(e.At, "Invalid origin", "origins must be %s.", must)
			continue
		}
		u, err := url.Parse(text)
		if err == nil {
			origin.Scheme, origin.Host, err = Origin(u)
		} else {
			err = errors.New("this is no URL")
		}
		switch {
		case err != nil:
			l.Errorf(e.At, "Invalid origin", "An origin is a scheme, a host and perhaps a port, such as \"https://auth.example.com\": %s.", err)
		case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
			l.Errorf(e.At, "Invalid origin", "An origin has no path, query or fragment: the plugin chooses those. Write %q.", u.Scheme+"://"+u.Host)
		case origin.CA != "" && origin.Scheme != "https":
			l.Errorf(e.At, "Useless ca", "ca says which certificates are believed; http has none. Remove it, or write https.")
		case origin.CA != "" && !l.readable(e.At, "ca", origin.CA):
		case slices.ContainsFunc(list, func(o FetchOrigin) bool { return o.Scheme == origin.Scheme && o.Host == origin.Host }):
			l.Errorf(e.At, "Duplicate origin", "%s://%s is in the list already; remove one of them.", origin.Scheme, origin.Host)
		default:
			list = append(list, origin)
		}
	}
	return list
}

// Origin is where u leads, as origins are compared: scheme http or https, and host:port with the port always there and the
// host in lower case, in ASCII (RFC 5891) and without a dot at its end, or an IP address in its shortest form.
func Origin(u *url.URL) (scheme, host string, err error) {
	scheme = u.Scheme
	port := u.Port()
	switch {
	case scheme != "http" && scheme != "https":
		return "", "", errors.New("the scheme is http or https")
	case u.Opaque != "":
		return "", "", errors.New("after the scheme comes //")
	case u.User != nil:
		return "", "", errors.New("it holds a user name or password")
	case port == "" && scheme == "http":
		port = "80"
	case port == "":
		port = "443"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", "", errors.New("the port is a number from 1 to 65535")
	}
	name, err := hostOf(u.Hostname())
	if err != nil {
		return "", "", err
	}
	return scheme, net.JoinHostPort(name, strconv.FormatUint(n, 10)), nil
}

func hostOf(name string) (string, error) {
	if addr, err := netip.ParseAddr(name); err == nil {
		if addr.Zone() != "" {
			return "", errors.New("an address with a zone is good for one link only")
		}
		return addr.Unmap().String(), nil
	}
	ascii, err := idna.Lookup.ToASCII(strings.TrimSuffix(name, "."))
	if err != nil {
		// Names of the private network may hold an underscore, which IDNA does not know.
		ascii = strings.ToLower(strings.TrimSuffix(name, "."))
	}
	if ascii == "" || len(ascii) > 253 || strings.Trim(ascii, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || strings.Contains(ascii, "..") || ascii[0] == '.' || ascii[len(ascii)-1] == '.' {
		return "", fmt.Errorf("%q is no host name", name)
	}
	if addr, err := netip.ParseAddr(ascii); err == nil {
		return addr.Unmap().String(), nil // digits in another script
	}
	return ascii, nil
}

// Destinations are the origins and upstreams a plugin may send requests to, as people read them.
func (f *PluginFetch) Destinations() []string {
	var list []string
	for _, o := range f.Origins {
		text := o.Scheme + "://" + o.Host
		if o.Private {
			text += " (also in a private network)"
		}
		list = append(list, text)
	}
	for _, u := range f.Upstreams {
		list = append(list, "upstream."+u.Name)
	}
	return list
}
