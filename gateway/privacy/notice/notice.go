// Package notice is the privacy policy that people read: rendered in two languages from what the configuration is checked
// to do, and kept version by version. Its main type is Edition.
package notice

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/postern-gateway/postern/gateway/privacy"
	"github.com/postern-gateway/postern/gateway/privacy/field"
)

// ErrUnpublished is what there is without a privacy block: no policy for people.
var ErrUnpublished = errors.New("the configuration has no privacy block, so no policy is published")

// Languages are those a policy is published in; the first is the one for everybody else.
func Languages() []string { return []string{"en", "zh"} }

// Edition is one version of the policy as it was published. It is stored as JSON.
type Edition struct {
	Version   string            `json:"version"`
	Effective time.Time         `json:"effective"` // midnight UTC
	Published time.Time         `json:"published"` // when the program first ran with it
	Digest    string            `json:"digest"`    // of what Data means, whatever the words and the order: SHA-256, hexadecimal
	Data      json.RawMessage   `json:"data"`      // a Statement
	HTML      map[string]string `json:"html"`      // by language, from the first section on
	Text      map[string]string `json:"text"`      // the same in plain text

	place string // of the block in the configuration, for messages
}

// Statement is what a policy says, in data: two configurations with equal statements have the same policy.
type Statement struct {
	Version   string             `json:"version"`
	Effective string             `json:"effective"`
	Operator  string             `json:"operator"`
	Contact   string             `json:"contact"`
	Classes   []privacy.Category `json:"classes"`
	Providers []Provider         `json:"providers"`
	Fetches   bool               `json:"fetches"`   // some plugin may send what it sees to other services
	Encrypted bool               `json:"encrypted"` // every listener speaks TLS
	Onward    bool               `json:"onward"`    // and every provider is reached by TLS
}

// Provider is who receives data, for people.
type Provider struct {
	Name     string   `json:"name"`
	Classes  []string `json:"classes"`
	Keeps    *string  `json:"keeps"` // a duration; "0s" is nothing, nil not known
	Training *bool    `json:"training"`
	Consent  bool     `json:"consent"` // it may receive some of this only with consent

	keeps   time.Duration
	content bool // it receives what people send to be worked on
}

// State is whether a version is in effect.
type State string

// The states.
const (
	Announced  State = "announced"
	InEffect   State = "in_effect"
	Superseded State = "superseded"
)

// Standing is how a version stands at a moment.
type Standing struct {
	State State
	Until time.Time // of one that is superseded: when the next took effect
}

// Page is a version ready to be shown. HTML is one article element without scripts, styles or ids; whoever shows it gives
// it a document around it.
type Page struct {
	Lang      string
	Title     string
	Version   string
	Effective time.Time
	Standing  Standing
	HTML      template.HTML
	Text      string
}

// Make renders the policy of a configuration.
func Make(p *privacy.Policy) (*Edition, error) {
	if !p.Written {
		return nil, ErrUnpublished
	}
	s := statement(p)
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("render policy version %s: %w", p.Version, err)
	}
	digest, err := s.digest()
	if err != nil {
		return nil, fmt.Errorf("render policy version %s: %w", p.Version, err)
	}
	e := &Edition{
		Version: p.Version, Effective: p.Effective, Digest: digest, Data: data, HTML: map[string]string{}, Text: map[string]string{},
		place: fmt.Sprintf("%s:%d:%d", p.Range.Filename, p.Range.Start.Line, p.Range.Start.Column),
	}
	for _, lang := range Languages() {
		sections := s.sections(lang)
		var html bytes.Buffer
		if err := page().ExecuteTemplate(&html, "body", sections); err != nil {
			return nil, fmt.Errorf("render policy version %s: %w", p.Version, err)
		}
		e.HTML[lang], e.Text[lang] = html.String(), plain(sections)
	}
	return e, nil
}

// statement is that of a checked policy.
func statement(p *privacy.Policy) *Statement {
	r := p.Report()
	s := &Statement{Version: p.Version, Effective: p.Effective.Format(time.DateOnly), Operator: p.Operator, Contact: p.Contact, Classes: r.Classes, Providers: []Provider{}, Encrypted: p.Facts.Encrypted, Onward: true}
	for i := range s.Classes {
		// Recipients are told by the names people know, below.
		for j, name := range s.Classes[i].Recipients {
			s.Classes[i].Recipients[j] = title(p, name)
		}
	}
	for i := range p.Facts.Receivers {
		receiver := &p.Facts.Receivers[i]
		one := Provider{Name: receiver.Title(), Classes: []string{}, Training: receiver.Training, Consent: !receiver.Post && len(p.Consents(receiver.Name)) > 0, keeps: receiver.Retention}
		for _, c := range s.Classes {
			for _, u := range p.Uses {
				if u.By != receiver.By() || p.ClassOf(u.Field).Name != c.Name {
					continue
				}
				if !slices.Contains(one.Classes, c.Name) {
					one.Classes = append(one.Classes, c.Name)
				}
				one.content = one.content || u.Field == "prompt" || u.Field == "request.body"
			}
		}
		if len(one.Classes) == 0 {
			continue
		}
		if receiver.Known {
			keeps := receiver.Retention.String()
			one.Keeps = &keeps
		}
		s.Onward = s.Onward && receiver.Encrypted
		s.Providers = append(s.Providers, one)
	}
	for _, u := range p.Uses {
		s.Fetches = s.Fetches || u.Act == privacy.Shares && strings.HasPrefix(u.By, "plugin.")
	}
	return s
}

// digest identifies what the statement means: not the program's own words for it, which may get better, and not the order
// in which the configuration has it.
func (s *Statement) digest() (string, error) {
	type class struct {
		Name, Basis                        string
		Summary                            field.Text // where it is the operator's
		Retention                          time.Duration
		Fields, Purposes, Acts, Recipients []string
	}
	words := func(list ...string) []string { slices.Sort(list); return list }
	essence := *s
	essence.Classes, essence.Providers = nil, slices.Clone(s.Providers)
	slices.SortFunc(essence.Providers, func(a, b Provider) int { return strings.Compare(a.Name, b.Name) })
	for i := range essence.Providers {
		essence.Providers[i].Classes = words(slices.Clone(essence.Providers[i].Classes)...)
	}
	var classes []class
	for _, c := range s.Classes {
		one := class{Name: c.Name, Basis: string(c.Basis), Retention: c.Retention, Recipients: words(slices.Clone(c.Recipients)...)}
		if c.Described {
			one.Summary = c.Summary
		}
		for _, f := range c.Fields {
			one.Fields = append(one.Fields, f.Name)
		}
		for _, p := range c.Purposes {
			one.Purposes = append(one.Purposes, string(p))
		}
		for _, a := range c.Acts {
			one.Acts = append(one.Acts, string(a))
		}
		one.Fields, one.Purposes, one.Acts = words(one.Fields...), words(one.Purposes...), words(one.Acts...)
		classes = append(classes, one)
	}
	slices.SortFunc(classes, func(a, b class) int { return strings.Compare(a.Name, b.Name) })
	b, err := json.Marshal([]any{essence, classes})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// title is what people know a recipient as.
func title(p *privacy.Policy, name string) string {
	for i := range p.Facts.Receivers {
		if r := &p.Facts.Receivers[i]; name == r.By() {
			return r.Title()
		}
	}
	return name
}

//go:embed page.html
var source string

// page is the template of a policy, and of its sections alone.
func page() *template.Template { return template.Must(template.New("page").Parse(source)) }

// Page shows the edition in a language, as it stands. A language that there is not is the first one.
func (e *Edition) Page(lang string, at Standing) Page {
	if e.HTML[lang] == "" {
		lang = Languages()[0]
	}
	p := Page{Lang: lang, Title: field.Text{En: "Privacy policy", Zh: "隐私政策"}.In(lang), Version: e.Version, Effective: e.Effective, Standing: at}
	line := e.standing(lang, at)
	var html bytes.Buffer
	// The sections were rendered by the same template when the edition was made.
	err := page().ExecuteTemplate(&html, "page", map[string]any{"Lang": map[string]string{"en": "en", "zh": "zh-CN"}[lang], "Title": p.Title, "Date": e.Effective.Format(time.DateOnly), "Line": line, "Body": template.HTML(e.HTML[lang])}) //nolint:gosec // escaped when it was made
	if err != nil {
		panic(err) // the template is part of the program, and a buffer takes everything
	}
	p.HTML, p.Text = template.HTML(html.String()), p.Title+"\n"+line+"\n"+e.Text[lang] //nolint:gosec // written by the template
	return p
}

// standing says which version this is and whether it is in effect.
func (e *Edition) standing(lang string, at Standing) string {
	day := e.Effective.Format(time.DateOnly)
	switch at.State {
	case InEffect:
		return fmt.Sprintf(field.Text{En: "Version %s. In effect since %s.", Zh: "版本 %s，自 %s 起生效。"}.In(lang), e.Version, day)
	case Superseded:
		return fmt.Sprintf(field.Text{En: "Version %s. In effect from %s to %s, superseded.", Zh: "版本 %s，生效期 %s 至 %s，已被新版本取代。"}.In(lang), e.Version, day, at.Until.Format(time.DateOnly))
	}
	return fmt.Sprintf(field.Text{En: "Version %s. Takes effect on %s.", Zh: "版本 %s，将于 %s 生效。"}.In(lang), e.Version, day)
}
