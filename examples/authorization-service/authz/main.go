// Command authz is a Postern plugin that asks an authorization service who calls: its main type is authz. The service gets
// the caller's field authorization. With 2xx it names the account in x-account and the caller's scopes, separated by spaces, in x-scopes;
// with 401 or 403 it does not know the caller. Whatever else comes, or nothing, lets nobody in.
package main

import (
	"bytes"
	"errors"
	"time"

	"github.com/postern-gateway/postern/sdk/abi"
	postern "github.com/postern-gateway/postern/sdk/go"
)

var _ = postern.Register(new(authz))

func main() {}

// authz is one instance.
type authz struct{ stages []stage }

type stage struct {
	url   string
	cache time.Duration
}

// The slots: of authenticate the header authorization, of request the attribute identity.account.
const (
	authorization = 0
	account       = 0
)

// Configure reads a stage's configuration; the stages come in order.
func (p *authz) Configure(s *postern.Stage) error {
	p.stages = append(p.stages, stage{url: s.Config.Member("url").Text(), cache: time.Duration(s.Config.Member("cache").Int())})
	return nil
}

// On asks, and takes the answer.
func (p *authz) On(e *postern.Event, r *postern.Result) error {
	st := &p.stages[e.Stage]
	switch {
	case e.Phase == postern.Request:
		// The application learns who calls, and not by which credentials.
		r.RemoveHeader("authorization")
		r.SetHeader("x-account", postern.String(e.Value(account).Bytes()))
	case e.Kind == abi.EventRequest:
		credentials, ok := e.Header(authorization)
		if !ok {
			refuse(r, "missing_credentials", "Send your credentials in the field authorization.")
			return nil
		}
		r.Fetch("whoami", postern.Fetch{
			URL: st.url, Headers: []postern.Field{{Name: "authorization", Value: postern.String(credentials)}}, Cache: st.cache, Max: 1 << 10,
		})
		r.Await()
	case e.Kind == abi.EventFetched:
		answer, _ := e.Answer("whoami")
		return decide(answer, r)
	}
	return nil
}

func decide(answer postern.Answer, r *postern.Result) error {
	who, _ := answer.Header("x-account")
	switch {
	case answer.Error == abi.FetchDenied || answer.Error == abi.FetchInvalid:
		return errors.New("the service can not be asked: " + answer.Error) // a mistake of the operator's, for the log
	case answer.Status == 401 || answer.Status == 403:
		refuse(r, "unknown_credentials", "The credentials are not valid.")
	case !answer.OK() || len(who) == 0:
		r.SetHeader("retry-after", "1")
		r.Respond(503, "authorization_unavailable", "It can not be said at the moment who you are.")
	default:
		r.SetAttribute("identity.account", postern.String(who))
		if scopes, ok := answer.Header("x-scopes"); ok {
			var list []string
			for _, s := range bytes.Fields(scopes) {
				list = append(list, postern.String(s))
			}
			r.SetAttributeStrings("identity.scopes", list...)
		}
	}
	return nil
}

func refuse(r *postern.Result, code, why string) {
	r.SetHeader("www-authenticate", `Bearer realm="postern"`)
	r.Respond(401, code, why)
}
