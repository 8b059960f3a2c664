package privacy

import (
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/postern-gateway/postern/gateway/privacy/field"
	"github.com/postern-gateway/postern/gateway/schema"
)

var (
	versionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$`)
	ownPattern     = regexp.MustCompile("^(header\\.[a-z0-9!#$%&'*+.^_`|~-]{1,100}|attribute\\.\\*|attribute\\.[A-Za-z][A-Za-z0-9_-]*\\.[^\\x00-\\x20\"]{1,200})$")
)

const mustFields = "a list of texts in quotes"

// Read reads the privacy block, or stands in for it. upstreams and plugins are the names that recipients may have. What is
// wrong goes to f; Check then says whether the rest of the configuration agrees with it.
func Read(f *schema.Findings, s *schema.Section, upstreams, plugins []string) *Policy {
	p := &Policy{Written: s.Given, Version: s.Text("version"), Contact: s.Text("contact"), Operator: s.Text("operator"), Range: s.At}
	if s.Given {
		p.published(f, s)
	}
	built := builtin()
	owner := map[string]string{} // of fields in written classes
	for _, b := range s.All("data_class") {
		name := b.Labels[0]
		if !schema.NamePattern.MatchString(name) {
			f.Errorf(b.At, "Invalid name", "The name of a data class must be a letter, then letters, digits, _ or -, at most 63.")
			continue
		}
		if first := p.Class(name); first != nil {
			f.Errorf(b.At, "Duplicate name", "There is a data class named %q already, at %s. Choose another name.", name, first.Range)
			continue
		}
		c := &Class{Name: name}
		if i := slices.IndexFunc(built, func(k *Class) bool { return k.Name == name }); i >= 0 {
			c = built[i]
			built = slices.Delete(built, i, i+1)
		} else {
			complete(f, b)
		}
		c.read(f, b, owner)
		c.recipients(f, b, upstreams, plugins)
		p.Classes = append(p.Classes, c)
	}
	// What is written somewhere is no longer where it was built in.
	for _, c := range append(slices.Clone(p.Classes), built...) {
		c.Fields = slices.DeleteFunc(c.Fields, func(name string) bool { o, ok := owner[name]; return ok && o != c.Name })
	}
	p.Classes = append(p.Classes, built...)
	return p
}

// published reads what only a policy that people read has.
func (p *Policy) published(f *schema.Findings, s *schema.Section) {
	if p.Version != "" && !versionPattern.MatchString(p.Version) {
		f.Errorf(s.Where("version"), "Invalid version", "version must be letters, digits or . _ -, at most 32, such as \"2\" or \"2026-12\".")
	}
	var err error
	if text := s.Text("effective"); text != "" {
		if p.Effective, err = time.Parse(time.DateOnly, text); err != nil {
			f.Errorf(s.Where("effective"), "Invalid day", "effective must be a day, such as \"2026-12-01\".")
		}
	}
	if p.Contact != "" && !reachable(p.Contact) {
		f.Errorf(s.Where("contact"), "Invalid contact", "contact must be an e-mail address or an https URL, such as \"privacy@example.com\".")
	}
}

// reachable reports whether people can write to a contact.
func reachable(contact string) bool {
	if u, err := url.Parse(contact); err == nil && u.Scheme == "https" && u.Host != "" {
		return true
	}
	a, err := mail.ParseAddress(contact)
	return err == nil && a.Address == contact
}

// complete reports what a class that is not built in lacks.
func complete(f *schema.Findings, b *schema.Section) {
	var missing []string
	for _, name := range []string{"summary", "fields", "purpose", "retention", "basis"} {
		if !b.Set(name) {
			missing = append(missing, name)
		}
	}
	if missing != nil {
		f.Errorf(b.At, "Missing argument", "The data class %q is not built in, so nothing stands in for what it lacks: %s.", b.Labels[0], strings.Join(missing, ", "))
	}
}

// read puts what is written into the place of what is built in. owner knows the classes of fields that are written.
func (c *Class) read(f *schema.Findings, b *schema.Section, owner map[string]string) {
	c.Range = b.At
	if b.Set("summary") {
		c.Summary, c.described = field.Text{}, true
		for _, e := range b.Table("summary") {
			switch {
			case !schema.Textual(e.Value):
			case e.Key == "en":
				c.Summary.En = e.Value.AsString()
			case e.Key == "zh":
				c.Summary.Zh = e.Value.AsString()
			default:
				f.Errorf(e.At, "Unknown language", "There is no language %q.%s", e.Key, schema.ThereAre([]string{"en", "zh"}))
			}
		}
		if c.Summary.En == "" || c.Summary.Zh == "" {
			f.Errorf(b.Where("summary"), "Missing language", "The policy is read in English and Chinese: write summary = { en = \"...\", zh = \"...\" }.")
		}
	}
	if b.Set("fields") {
		c.Fields = nil
		for _, e := range b.Entries("fields", mustFields) {
			if !schema.Textual(e.Value) {
				f.Errorf(e.At, "Invalid value", "fields must be a list of texts in quotes.")
				continue
			}
			name := e.Value.AsString()
			switch _, known := field.Find(name); {
			case !known && !ownPattern.MatchString(name):
				f.Errorf(e.At, "Unknown field", "The program has no field %q.%s", name, schema.Choices(name, fieldNames()))
			case owner[name] == c.Name:
				f.Errorf(e.At, "Duplicate field", "%s is in the list already; remove one of them.", name)
			case owner[name] != "":
				f.Errorf(e.At, "Field in two classes", "%s is in the data class %s already. A field belongs to one class.", name, owner[name])
			default:
				owner[name] = c.Name
				c.Fields = append(c.Fields, name)
			}
		}
	}
	if b.Set("purpose") {
		c.Purposes = nil
		for _, w := range b.Words("purpose") {
			c.Purposes = append(c.Purposes, Purpose(w))
		}
		if schema.IsEmpty(b.Expr("purpose")) {
			f.Errorf(b.Where("purpose"), "No purpose", "Data without a purpose may not be kept. Name one, or do without the class.")
		}
	}
	if b.Set("basis") {
		c.Basis = Basis(b.Word("basis"))
	}
	if b.Set("retention") {
		c.Retention, c.fixed, c.retention = b.Span("retention"), true, b.Where("retention")
	}
	if slices.Contains(c.Purposes, Communicate) && c.Basis != Consent {
		f.Errorf(b.Where("purpose"), "Missing consent", "communicate needs the consent of those it is about: write basis = consent, or give what is for communication a class of its own.")
	}
}

// recipients reads who may receive data of the class.
func (c *Class) recipients(f *schema.Findings, b *schema.Section, upstreams, plugins []string) {
	e := b.Expr("recipients")
	if e == nil {
		return
	}
	c.Recipients = []string{}
	parts, diags := hcl.ExprList(e)
	if diags.HasErrors() {
		parts = []hcl.Expression{e}
	}
	for _, part := range parts {
		t, diags := hcl.AbsTraversalForExpr(part)
		if !diags.HasErrors() && len(t) == 1 && t.RootName() == "mail" {
			c.Recipients = append(c.Recipients, "mail")
			continue
		}
		if diags.HasErrors() || len(t) != 2 || t.RootName() != "upstream" && t.RootName() != "plugin" || schema.Step(t[1]) == "" {
			f.Errorf(part.Range(), "Invalid recipient", "A recipient is an upstream, a plugin or mail, without quotes, such as upstream.name.")
			continue
		}
		names := upstreams
		if t.RootName() == "plugin" {
			names = plugins
		}
		name := schema.Step(t[1])
		if !slices.Contains(names, name) {
			f.Errorf(part.Range(), "Unknown recipient", "There is no %s named %q.%s", t.RootName(), name, schema.Choices(name, names))
			continue
		}
		c.Recipients = append(c.Recipients, t.RootName()+"."+name)
	}
}

// ReadProvider reads what is known of whoever is behind an upstream. classes are the names there are.
func ReadProvider(s *schema.Section, classes []string) Provider {
	p := Provider{Recipient: s.Text("recipient"), Limited: s.Set("shares"), Known: s.Set("retention"), sharesAt: s.Where("shares"), retentionAt: s.Where("retention"), trainingAt: s.Where("training")}
	p.Shares, p.Retention = s.Words("shares", classes...), s.Span("retention")
	p.Metadata = s.Word("image_metadata") == "keep"
	if s.Set("training") {
		trains := s.Flag("training")
		p.Training = &trains
	}
	return p
}

func fieldNames() []string {
	var list []string
	for _, f := range field.All() {
		list = append(list, f.Name)
	}
	return list
}
