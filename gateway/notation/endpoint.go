package notation

import (
	"math/big"
	"net/url"
	"slices"

	"github.com/postern-gateway/postern/gateway/schema"
)

// Endpoint is one address of an upstream.
type Endpoint struct {
	URL    *url.URL // scheme http or https, host, optional base path; no query, no user
	Weight int      // default 1, 0 to 1000; used by weighted
}

// Endpoints reads the addresses of an upstream; those that are wrong have been reported.
func (r *Reader) Endpoints(s *schema.Section) []Endpoint {
	const must = `a list of URLs such as "https://api.example.com", or of { url = "...", weight = 1 }`
	var list []Endpoint
	weight := 0
	entries := s.Entries("endpoints", must)
	for _, e := range entries {
		one := Endpoint{Weight: 1}
		text := ""
		switch t := e.Value.Type(); {
		case schema.Textual(e.Value):
			text = e.Value.AsString()
		case t.IsObjectType() && t.HasAttribute("url") && schema.Textual(e.Value.GetAttr("url")) && len(t.AttributeTypes()) == 1:
			text = e.Value.GetAttr("url").AsString()
		case t.IsObjectType() && t.HasAttribute("url") && schema.Textual(e.Value.GetAttr("url")) && t.HasAttribute("weight") && len(t.AttributeTypes()) == 2:
			text = e.Value.GetAttr("url").AsString()
			weighs, ok := schema.Exact(e.Value.GetAttr("weight"))
			if !ok || !weighs.IsInt() || weighs.Sign() < 0 || weighs.Cmp(big.NewRat(1000, 1)) > 0 {
				r.Errorf(e.At, "Invalid weight", "The weight of an endpoint is a whole number from 0 to 1000.")
				continue
			}
			one.Weight = int(weighs.Num().Int64())
		default:
			r.Errorf(e.At, "Invalid endpoint", "endpoints must be %s.", must)
			continue
		}
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Host == "" || u.Opaque != "" || u.Hostname() == "":
			r.Errorf(e.At, "Invalid endpoint", "This is no URL with scheme and host, such as \"https://api.example.com\".")
		case u.Scheme != "http" && u.Scheme != "https":
			r.Errorf(e.At, "Invalid endpoint", "The scheme of an endpoint is http or https, not %s. What is spoken there is said by protocol.", u.Scheme)
		case u.User != nil:
			r.Errorf(e.At, "Invalid endpoint", "An endpoint holds no user name or password. Put credentials in a secret, and use it in headers.")
		case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
			r.Errorf(e.At, "Invalid endpoint", "An endpoint holds no query or fragment; those are the request's.")
		case slices.ContainsFunc(list, func(o Endpoint) bool { return o.URL.String() == u.String() }):
			r.Errorf(e.At, "Duplicate endpoint", "This endpoint is in the list already; remove one, or give the other a higher weight.")
		default:
			one.URL = u
			list = append(list, one)
			weight += one.Weight
		}
	}
	switch {
	case schema.IsEmpty(s.Expr("endpoints")):
		r.Errorf(s.Where("endpoints"), "No endpoint", "An upstream has at least one endpoint.")
	case len(list) == len(entries) && len(list) > 0 && weight == 0:
		r.Errorf(s.Where("endpoints"), "No endpoint", "All endpoints have weight 0, so none would ever be used.")
	}
	return list
}
