package console

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// maxForm bounds a form, in octets.
const maxForm = 64 << 10

// policy is the Content-Security-Policy of every page: nothing inline, nothing from elsewhere, nowhere in a frame.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP answers one request.
func (k *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=()")
	h.Set("Cache-Control", "no-store")
	site := k.config.Server.Config().Console
	if !site.Answers(r.Host) {
		// 421: whoever has this name point here gets no page, and no cache keeps one for it (RFC 9110 section 15.5.20).
		problem(w, http.StatusMisdirectedRequest, "unknown_host", "The console does not answer to this name.")
		return
	}
	if k.secure(r) && !loopback(r.Host) {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	if err := k.origin.Check(r); err != nil {
		problem(w, http.StatusForbidden, "cross_origin", "Another site's page sent this.")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	k.mux.ServeHTTP(w, r)
}

// secure reports whether nobody between can read what the browser sends: by this listener's TLS, or by that of whatever
// stands before it, which the configured address tells of.
func (k *Console) secure(r *http.Request) bool {
	return r.TLS != nil || strings.HasPrefix(k.config.Server.Config().Console.URL, "https://")
}

func loopback(authority string) bool {
	host := authority
	if h, _, err := net.SplitHostPort(authority); err == nil {
		host = h
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && a.IsLoopback()
}

// problem answers what no page is for.
func problem(w http.ResponseWriter, status int, code, title string) {
	p := exchange.Problem{Status: status, Code: code, Title: title}
	w.Header().Set("Content-Type", exchange.ProblemType)
	w.WriteHeader(status)
	_, _ = w.Write(append(p.JSON(""), '\n')) // the client may have gone
}

// local returns a path of this console that to says, and "/" where it says anything else: an address elsewhere, or one that
// some browser takes for such.
func local(to string) string {
	u, err := url.Parse(to)
	switch {
	case err != nil, u.Scheme != "", u.Host != "", u.User != nil, u.Opaque != "",
		!strings.HasPrefix(to, "/"), strings.HasPrefix(to, "//"), strings.ContainsAny(to, "\\\r\n\t"), len(to) > 2048:
		return "/"
	}
	return to
}

// redirect sends the browser to another page of the console, to be read with GET.
func redirect(w http.ResponseWriter, r *http.Request, to string) {
	http.Redirect(w, r, local(to), http.StatusSeeOther)
}

// network is what one person can have many addresses of: an IPv4 address, or a /64 of IPv6.
func network(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	a, bits := ap.Addr().Unmap().WithZone(""), 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p
}

func robots(w http.ResponseWriter, _ *http.Request) {
	whole(w, "text/plain; charset=utf-8", []byte("User-agent: *\nDisallow: /operator\n"))
}

// whole answers with what everyone may read. The length is said, for those who ask for the head alone.
func whole(w http.ResponseWriter, kind string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-cache")
	_, _ = w.Write(body) // the client may have gone
}
