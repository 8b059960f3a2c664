// Package settings is the accounts block of the configuration, read and checked: its main type is Settings, plain data
// that package person and package mail are made from.
package settings

import (
	"net/mail"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/notation"
	"github.com/postern-gateway/postern/gateway/schema"
)

// Settings is an accounts block.
type Settings struct {
	Public    *url.URL // where people reach the console; scheme, host and path only, no slash at its end
	Signup    Signup
	Service   string        // what mails call the service, 1 to 60 characters
	Language  string        // of people who chose none: "en" (default) or "zh"
	Deletion  time.Duration // between asking for one and it; default 14d, 1h to 30d, or 0
	Mail      Mail
	Sessions  Sessions
	Passwords Passwords
	Throttle  Throttle
	Tokens    Tokens
	Range     hcl.Range
}

// Signup is who may become a person.
type Signup string

// The ways to sign up.
const (
	Open    Signup = "open"    // anybody with an e-mail address
	Invited Signup = "invited" // who was invited to an account; the default
	Closed  Signup = "closed"  // nobody
)

// Mail says how mail leaves. Exactly one of Outbox and SMTP is set.
type Mail struct {
	From         string // a sender by RFC 5322, such as "Edge <no-reply@example.com>"
	Outbox       string // folder for .eml files, absolute
	SMTP         *SMTP
	Queue        int // messages that may wait, default 10000, 10 to 1000000
	PerRecipient int // messages an hour to one address that strangers can cause, default 6, 1 to 1000
}

// SMTP is a mail server.
type SMTP struct {
	Host      string
	Recipient string        // who runs it, for people; empty: Host says it
	Port      int           // never 0
	TLS       string        // "starttls" (default), "implicit" or "none"
	User      string        // empty: no authentication
	Password  string        // never printed
	Withheld  bool          // Password is a secret that was not read
	CA        string        // PEM file with the only roots trusted, absolute; empty: the system's
	Timeout   time.Duration // for one message, default 30s, 1s to 5m
}

// Elsewhere reports whether somebody else than the operator gets the messages to carry them.
func (m *SMTP) Elsewhere() bool { return m.Recipient != "" || !loopback(m.Host) }

// Sessions bounds how long people stay signed in.
type Sessions struct {
	Idle     time.Duration // without a request, default 7d, 5m to 400d, at most Absolute
	Absolute time.Duration // in all, default 30d, 5m to 400d
	Recent   time.Duration // how fresh a sign-in must be for what is dangerous, default 15m, 1m to 24h
	Most     int           // of one person, default 50, 1 to 1000
}

// Passwords says what passwords must be and what a hash of one costs.
type Passwords struct {
	Least      int    // characters, default 10, 10 to 64
	Memory     uint32 // KiB of a hash, default 19456
	Passes     uint32 // default 2
	Concurrent int    // hashes at once; 0: one for each processor
}

// Throttle says how guessing is slowed down.
type Throttle struct {
	Person  int           // free tries of one person from one network, default 5
	Network int           // free tries of one network, default 30
	Wait    time.Duration // the longest wait, default 15m
}

// Tokens says how long links in mails hold.
type Tokens struct {
	Confirm    time.Duration // default 24h
	Reset      time.Duration // default 1h
	Undo       time.Duration // default 7d
	Invitation time.Duration // default 7d
}

// Same reports whether two blocks say the same, wherever they stand; nil is no block.
func (s *Settings) Same(o *Settings) bool {
	if s == nil || o == nil {
		return s == o
	}
	a, b := *s, *o
	a.Range, b.Range = hcl.Range{}, hcl.Range{}
	return reflect.DeepEqual(a, b)
}

// Read reads the accounts block; service is what the service is called where the block does not say.
func Read(r *notation.Reader, s *schema.Section, service string) *Settings {
	sessions, passwords, throttle, tokens := s.One("sessions"), s.One("passwords"), s.One("throttle"), s.One("tokens")
	a := &Settings{
		Public: public(r, s), Signup: Signup(s.Word("signup")), Service: s.Text("service"), Language: s.Word("language"), Deletion: s.Span("deletion"),
		Sessions:  Sessions{Idle: sessions.Span("idle"), Absolute: sessions.Span("absolute"), Recent: sessions.Span("recent"), Most: int(sessions.Count("most"))},
		Passwords: Passwords{Least: int(passwords.Count("least")), Memory: uint32(passwords.Size("memory") >> 10), Passes: uint32(passwords.Count("passes")), Concurrent: int(passwords.Count("concurrent"))},
		Throttle:  Throttle{Person: int(throttle.Count("person")), Network: int(throttle.Count("network")), Wait: throttle.Span("wait")},
		Tokens:    Tokens{Confirm: tokens.Span("confirm"), Reset: tokens.Span("reset"), Undo: tokens.Span("undo"), Invitation: tokens.Span("invitation")},
		Range:     s.At,
	}
	if !s.Set("service") {
		a.Service = service
	} else if n := utf8.RuneCountInString(a.Service); n == 0 || n > 60 || strings.ContainsFunc(a.Service, unicode.IsControl) || strings.TrimSpace(a.Service) != a.Service {
		r.Errorf(s.Where("service"), "Invalid name", "service must have 1 to 60 characters on one line, and no space at its ends.")
	}
	if w := a.Sessions; w.Idle > w.Absolute {
		if sessions.Set("idle") {
			r.Errorf(sessions.Where("idle"), "Bounds crossed", "idle must not be above absolute: a session is over then in any case.")
		}
		a.Sessions.Idle = w.Absolute
	}
	for _, m := range s.All("mail") {
		a.Mail = readMail(r, m)
		break
	}
	return a
}

// public reads the console's URL.
func public(r *notation.Reader, s *schema.Section) *url.URL {
	text := s.Text("public")
	if text == "" {
		return &url.URL{}
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		r.Errorf(s.Where("public"), "Invalid URL", "public must be an https URL, such as \"https://edge.example.com/console\".")
		return &url.URL{}
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(text, "#"):
		r.Errorf(s.Where("public"), "Invalid URL", "public must have a scheme, a host and at most a path: links are made by adding to it.")
		return &url.URL{}
	case u.Scheme == "http" && !loopback(u.Hostname()):
		r.Errorf(s.Where("public"), "Public URL in cleartext", "Passwords and sessions would cross the network for all to read. Write https; http is for localhost alone.")
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Path: strings.TrimRight(u.Path, "/")}
}

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && ip.IsLoopback()
}

// readMail reads how mail leaves.
func readMail(r *notation.Reader, s *schema.Section) Mail {
	m := Mail{From: s.Text("from"), Queue: int(s.Count("queue")), PerRecipient: int(s.Count("per_recipient"))}
	if m.From != "" {
		if a, err := mail.ParseAddress(m.From); err != nil || strings.ContainsFunc(m.From, unicode.IsControl) || !strings.Contains(a.Address, "@") {
			r.Errorf(s.Where("from"), "Invalid sender", "from must be an address or a name with an address, such as \"Edge <no-reply@example.com>\".")
		}
	}
	if folder := s.Text("outbox"); folder != "" {
		m.Outbox = r.Absolute(folder)
	}
	given := s.All("smtp")
	switch {
	case m.Outbox != "" && len(given) > 0:
		r.Errorf(s.Where("outbox"), "Two ways out", "Mail leaves by smtp or into the outbox: remove one of them.")
	case m.Outbox == "" && len(given) == 0:
		r.Errorf(s.At, "No way out", "The mail block needs an smtp block, or outbox = \"outbox\" for development.")
	}
	if len(given) > 0 {
		m.SMTP = readSMTP(r, given[0])
	}
	return m
}

// readSMTP reads a mail server.
func readSMTP(r *notation.Reader, s *schema.Section) *SMTP {
	password, isSecret := s.SecretText("password")
	m := &SMTP{
		Host: s.Text("host"), Recipient: s.Text("recipient"), Port: int(s.Count("port")), TLS: s.Word("tls"), User: s.Text("user"), Password: password,
		Withheld: password == "" && s.Set("password"), CA: r.File(s, "ca"), Timeout: s.Span("timeout"),
	}
	if m.Port == 0 {
		m.Port = 587
		if m.TLS == "implicit" {
			m.Port = 465
		}
	}
	if m.Host != "" && strings.ContainsAny(m.Host, ":/@ ") && !isAddress(m.Host) {
		r.Errorf(s.Where("host"), "Invalid host", "host must be a name or an IP address; the port is an argument of its own.")
	}
	switch {
	case s.Set("user") != s.Set("password"):
		r.Errorf(s.At, "Half of a sign-in", "smtp needs both user and password, or neither.")
	case password != "" && !isSecret:
		r.Warnf(s.Where("password"), "Password in the open", "The password stands in the file. Read it from a secret block instead.")
	}
	if m.TLS == "none" {
		switch {
		case m.CA != "" || s.Set("ca"):
			r.Errorf(s.Where("ca"), "Useless roots", "With tls = none there is no certificate to check: remove ca.")
		case s.Set("password") && m.Host != "" && !loopback(m.Host):
			r.Errorf(s.Where("tls"), "Password in cleartext", "The password would cross the network for all to read: use starttls or implicit.")
		case m.Host != "" && !loopback(m.Host):
			r.Warnf(s.Where("tls"), "Mail in cleartext", "Links to choose a password cross the network for all to read: use starttls or implicit where %s can.", m.Host)
		}
	}
	return m
}

// isAddress reports whether a host is an IP address.
func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}
