package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
)

// SMTP sends by a mail server (RFC 5321). Host and Port are required.
type SMTP struct {
	Host           string
	Port           int
	Security       string        // "starttls" (default), "implicit" or "none"
	User, Password string        // empty: no authentication
	CA             string        // PEM file with the only roots trusted; empty: the system's
	Timeout        time.Duration // for one message, default 30s
}

// Send implements Transport. A message is sent once its octets were accepted: what a server does afterwards, at QUIT, is
// no reason to send it again.
func (s *SMTP) Send(ctx context.Context, l *Letter) error {
	timeout := s.Timeout
	if timeout <= 0 {
		timeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	options := []gomail.Option{gomail.WithPort(s.Port), gomail.WithTimeout(timeout), gomail.WithoutRset(), gomail.WithoutNoop()}
	if _, domain, ok := strings.Cut(l.From, "@"); ok {
		options = append(options, gomail.WithHELO(domain)) // what this machine calls itself is nobody's business
	}
	switch s.Security {
	case "implicit":
		options = append(options, gomail.WithSSL())
	case "none":
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if s.Security != "none" {
		trust := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.Host}
		if s.CA != "" {
			text, err := os.ReadFile(s.CA)
			if err != nil {
				return fmt.Errorf("mail server's roots: %w", err)
			}
			trust.RootCAs = x509.NewCertPool()
			if !trust.RootCAs.AppendCertsFromPEM(text) {
				return fmt.Errorf("mail server's roots: %s has no certificate", s.CA)
			}
		}
		options = append(options, gomail.WithTLSConfig(trust))
	}
	if s.User != "" {
		kind := gomail.SMTPAuthAutoDiscover
		if s.Security == "none" {
			kind = gomail.SMTPAuthPlainNoEnc // the configuration allows it on this machine alone
		}
		options = append(options, gomail.WithSMTPAuth(kind), gomail.WithUsername(s.User), gomail.WithPassword(s.Password))
	}
	client, err := gomail.NewClient(s.Host, options...)
	if err != nil {
		return fmt.Errorf("mail server: %w", err)
	}
	conn, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return fmt.Errorf("mail server: %w", err)
	}
	watched := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends a server that stalls
	defer watched()
	err = client.SendWithSMTPClient(conn, l.message)
	_ = client.CloseWithSMTPClient(conn)
	if err == nil {
		return nil
	}
	refused, ok := errors.AsType[*gomail.SendError](err)
	if ok && refused.ErrorCode() >= 500 && refused.ErrorCode() < 600 && (refused.Reason == gomail.ErrSMTPRcptTo || refused.Reason == gomail.ErrSMTPData || refused.Reason == gomail.ErrSMTPDataClose) {
		return Refusal{Code: refused.ErrorCode()}
	}
	if ok {
		return fmt.Errorf("mail server answered %d %s", refused.ErrorCode(), refused.EnhancedStatusCode())
	}
	return fmt.Errorf("mail server: %w", err)
}

// Outbox is a folder of .eml files, for development. It is made, for its user alone.
type Outbox struct {
	Dir string
}

// Send implements Transport. A file's name begins with the time, so that they stand in order; a second try writes the
// same file.
func (b Outbox) Send(_ context.Context, l *Letter) error {
	if err := os.MkdirAll(b.Dir, 0o700); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	f, err := os.CreateTemp(b.Dir, ".new-*")
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	_, err = l.message.WriteTo(f)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(b.Dir, l.Made.UTC().Format("20060102-150405.000")+"-"+l.ID+".eml"))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("outbox: %w", err)
	}
	return nil
}
