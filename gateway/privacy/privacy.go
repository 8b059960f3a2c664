// Package privacy is what a configuration does with personal data: classes of it, what each is used for, on which basis,
// for how long and with whom it is shared. Its main type is Policy, which is checked against everything the configuration
// makes the program store, log, show and share; the report and the published page are made from it.
package privacy

import (
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/privacy/field"
)

// Purpose is what data are used for. There are no others than these.
type Purpose string

// The purposes.
const (
	Deliver      Purpose = "deliver"      // the service itself
	Authenticate Purpose = "authenticate" // knowing who calls
	Bill         Purpose = "bill"
	Defend       Purpose = "defend" // against abuse
	Improve      Purpose = "improve"
	Communicate  Purpose = "communicate" // news; needs consent
)

// Basis is why data may be used.
type Basis string

// The bases.
const (
	Contract           Basis = "contract"
	Consent            Basis = "consent"
	LegalObligation    Basis = "legal_obligation"
	LegitimateInterest Basis = "legitimate_interest"
)

// Retentions that are no duration.
const (
	WithAccount time.Duration = 0  // for as long as the account exists
	Forever     time.Duration = -1 // without end
)

// longer reports whether keeping for a is longer than keeping for b.
func longer(a, b time.Duration) bool {
	rank := func(d time.Duration) int { return map[time.Duration]int{WithAccount: 1, Forever: 2}[d] }
	if rank(a) != rank(b) {
		return rank(a) > rank(b)
	}
	return a > b
}

// Class is a class of personal data.
type Class struct {
	Name       string
	Summary    field.Text
	Fields     []string // names of the register, "header.NAME" and "attribute.PLUGIN.NAME"
	Purposes   []Purpose
	Basis      Basis
	Retention  time.Duration // or WithAccount, or Forever
	Recipients []string      // "upstream.NAME", "plugin.NAME" or "mail"; nil: whoever Provider.Shares allows
	Range      hcl.Range     // zero: built in

	described bool // the summary is written
	fixed     bool // the retention is written, so nothing may be kept longer
	retention hcl.Range
}

// Needs reports whether nothing of the class may be used without consent.
func (c *Class) Needs() bool { return c.Basis == Consent }

// Provider is what is known of whoever is behind an upstream.
type Provider struct {
	Recipient string        // for people
	Shares    []string      // classes it may receive
	Limited   bool          // Shares is written; otherwise it may receive all
	Known     bool          // Retention is written
	Retention time.Duration // how long it keeps what it receives; 0: not at all
	Training  *bool         // whether it trains models on it; nil: not known
	Metadata  bool          // images are sent with theirs

	sharesAt, retentionAt, trainingAt hcl.Range
}

// May reports whether the provider may receive data of a class.
func (p *Provider) May(class string) bool { return !p.Limited || slices.Contains(p.Shares, class) }

// Trains reports whether it is said that the provider trains models on what it receives.
func (p *Provider) Trains() bool { return p.Training != nil && *p.Training }

// Equal reports whether the same is known of both, wherever it is written.
func (p *Provider) Equal(o *Provider) bool {
	return p.Recipient == o.Recipient && p.Limited == o.Limited && slices.Equal(p.Shares, o.Shares) && p.Known == o.Known && p.Retention == o.Retention && p.Metadata == o.Metadata &&
		(p.Training == nil) == (o.Training == nil) && p.Trains() == o.Trains()
}

// Policy is what one configuration does with personal data. It does not change once it is checked.
type Policy struct {
	Written   bool // there is a privacy block; otherwise no policy is published, and what follows up to Classes is empty
	Version   string
	Effective time.Time // midnight UTC
	Contact   string
	Operator  string
	Range     hcl.Range

	Classes []*Class // the written ones in file order, then those built in
	Facts   Facts    // what the configuration makes the program do
	Uses    []Use    // that, field by field
}

// Class returns the class called name, or nil.
func (p *Policy) Class(name string) *Class {
	for _, c := range p.Classes {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// ClassOf is the class that a field belongs to, or nil. Without a privacy block a header or attribute that no class names
// belongs where header.other and attribute.other do; with one it has to be named, or a class has to say header.* or
// attribute.*.
func (p *Policy) ClassOf(name string) *Class {
	list := []string{name}
	if other := rest(name); other != "" && other != name {
		if p.Written {
			other = strings.TrimSuffix(other, "other") + "*"
		}
		list = append(list, other)
	}
	for _, name := range list {
		for _, c := range p.Classes {
			if slices.Contains(c.Fields, name) {
				return c
			}
		}
	}
	return nil
}

// Names are the names of all classes.
func (p *Policy) Names() []string {
	list := make([]string, len(p.Classes))
	for i, c := range p.Classes {
		list[i] = c.Name
	}
	return list
}

// Consents are the classes of which an upstream may receive something only with the consent of the person it is about:
// where the provider trains models, that is all of them, or the configuration does not load.
func (p *Policy) Consents(upstream string) []string {
	var list []string
	for _, u := range p.Uses {
		if c := p.ClassOf(u.Field); u.By == "upstream."+upstream && c != nil && c.Needs() && !slices.Contains(list, c.Name) {
			list = append(list, c.Name)
		}
	}
	return list
}
