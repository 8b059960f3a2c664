package mail

import (
	"embed"
	"fmt"
	htmltemplate "html/template"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode"

	gomail "github.com/wneessen/go-mail"
)

// Letter is a message written out: what goes through a Transport.
type Letter struct {
	ID   string // of the message; the same in every try
	From string // the envelope's sender
	To   string // the envelope's receiver
	Made time.Time

	message *gomail.Msg
}

// texts are the catalogue: one file a language, one template a kind. The first line is the subject; then paragraphs,
// between empty lines. A paragraph that is the link alone becomes one.
//
//go:embed text/*.tmpl
var texts embed.FS

// Languages are those there are texts in.
func Languages() []string { return []string{"en", "zh"} }

// Kinds are the kinds of message there are.
func Kinds() []string {
	return []string{"confirm", "registered", "reset", "unregistered", "password", "address", "address_taken", "address_changed", "invitation", "factors", "guesses",
		"export", "deletion", "deleted", "request"}
}

// write writes a message out in its language.
func (o *Office) write(m *Message, id string, made time.Time) (*Letter, error) {
	language := m.Language
	if language != "zh" {
		language = "en"
	}
	set, err := template.New("").Option("missingkey=error").ParseFS(texts, "text/"+language+".tmpl")
	if err != nil {
		return nil, fmt.Errorf("mail texts: %w", err)
	}
	one := set.Lookup(m.Kind)
	if one == nil || m.Kind == "" {
		return nil, fmt.Errorf("%w: there is no kind %q", ErrInvalid, m.Kind)
	}
	link := ""
	values := map[string]string{"Service": Harmless(o.c.Service)}
	for k, v := range m.Values {
		values[k] = Harmless(v)
	}
	if m.Path != "" {
		link = o.link(m.Path, m.Token)
		values["Link"] = link
	}
	var out strings.Builder
	if err := one.Execute(&out, values); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, m.Kind, err)
	}
	subject, body, _ := strings.Cut(strings.TrimSpace(out.String()), "\n")
	var paragraphs []paragraph
	for p := range strings.SplitSeq(body, "\n\n") {
		if p = strings.TrimSpace(p); p != "" {
			paragraphs = append(paragraphs, paragraph{Text: p, Link: link != "" && p == link})
		}
	}
	plain := make([]string, len(paragraphs))
	for i, p := range paragraphs {
		plain[i] = p.Text
	}
	var html strings.Builder
	if err := page.Execute(&html, map[string]any{"Language": language, "Subject": subject, "Paragraphs": paragraphs}); err != nil {
		return nil, fmt.Errorf("mail page: %w", err)
	}

	l := &Letter{ID: id, From: o.from.Address, To: m.To, Made: made, message: gomail.NewMsg(gomail.WithNoDefaultUserAgent())}
	if err := l.message.FromFormat(o.from.Name, o.from.Address); err != nil {
		return nil, fmt.Errorf("mail sender: %w", err)
	}
	if err := l.message.To(m.To); err != nil {
		return nil, fmt.Errorf("%w: the receiver is not an address", ErrInvalid)
	}
	_, domain, _ := strings.Cut(o.from.Address, "@")
	l.message.SetMessageIDWithValue(id + "@" + domain)
	l.message.SetDateWithValue(made)
	l.message.Subject(subject)
	l.message.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nothing answers it by itself
	l.message.SetGenHeader("X-Auto-Response-Suppress", "All")
	l.message.SetGenHeader("Content-Language", language)
	l.message.SetBodyString(gomail.TypeTextPlain, strings.Join(plain, "\r\n\r\n")+"\r\n")
	l.message.AddAlternativeString(gomail.TypeTextHTML, html.String())
	return l, nil
}

// link is a page of the console, by its public URL alone.
func (o *Office) link(path, token string) string {
	u := url.URL{Scheme: o.c.Public.Scheme, Host: o.c.Public.Host, Path: strings.TrimRight(o.c.Public.Path, "/") + path}
	if token != "" {
		u.RawQuery = url.Values{"token": {token}}.Encode()
	}
	return u.String()
}

// paragraph is one of a text's.
type paragraph struct {
	Text string
	Link bool
}

// page is the HTML form: nothing in it is fetched from anywhere.
var page = htmltemplate.Must(htmltemplate.New("page").Parse(`<!doctype html>
<html lang="{{.Language}}">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"><title>{{.Subject}}</title></head>
<body style="margin:0 auto;max-width:36em;padding:1.5em;font:16px/1.5 system-ui,sans-serif">
{{range .Paragraphs}}{{if .Link}}<p><a href="{{.Text}}" style="word-break:break-all">{{.Text}}</a></p>
{{else}}<p>{{.Text}}</p>
{{end}}{{end}}</body>
</html>
`))

// site is what mail programs make links of by themselves.
var site = regexp.MustCompile(`[.:/]+(\pL|\pN)`)

// Harmless makes one short line of a value that somebody chose, such as a name: it can neither begin a paragraph or a
// header field nor read as a link.
func Harmless(value string) string {
	const most = 80 // characters
	value = strings.Map(func(r rune) rune {
		switch {
		case r == unicode.ReplacementChar || unicode.Is(unicode.Cf, r): // direction marks, zero widths
			return -1
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, value)
	value = strings.Join(strings.Fields(value), " ")
	value = site.ReplaceAllStringFunc(value, func(m string) string {
		return string(m[0]) + " " + strings.TrimLeft(m, ".:/")
	})
	if r := []rune(value); len(r) > most {
		value = string(r[:most-1]) + "…"
	}
	return value
}

// Hours writes how long a link holds, for the value Hours of messages.
func Hours(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Round(6*time.Minute))/float64(time.Hour), 'f', -1, 64)
}
