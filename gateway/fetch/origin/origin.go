// Package origin says where a URL leads, in the one form that what an operator granted and what a plugin asks for are compared
// in. Its main type is Origin.
package origin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// Origin is a scheme, a host and a port.
type Origin struct {
	Scheme string // http or https
	// Host is host:port, the port always there; the host in lower case, in ASCII (RFC 5891) and without a dot at its end, or
	// an IP address in its shortest form.
	Host string
}

// String is the origin as a URL.
func (o Origin) String() string { return o.Scheme + "://" + o.Host }

// Of is where u leads.
func Of(u *url.URL) (Origin, error) {
	scheme, port := u.Scheme, u.Port()
	switch {
	case scheme != "http" && scheme != "https":
		return Origin{}, errors.New("the scheme is http or https")
	case u.Opaque != "":
		return Origin{}, errors.New("after the scheme comes //")
	case u.User != nil:
		return Origin{}, errors.New("it holds a user name or password")
	case port == "" && scheme == "http":
		port = "80"
	case port == "":
		port = "443"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Origin{}, errors.New("the port is a number from 1 to 65535")
	}
	name, err := hostOf(u.Hostname())
	if err != nil {
		return Origin{}, err
	}
	return Origin{Scheme: scheme, Host: net.JoinHostPort(name, strconv.FormatUint(n, 10))}, nil
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
