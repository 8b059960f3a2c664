package admin

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-gateway/postern/gateway/exchange"
	"github.com/postern-gateway/postern/gateway/ledger"
)

// TestKeys: a key's life by the API, and that its secret is in two answers alone.
func TestKeys(t *testing.T) {
	t.Parallel()
	o := operate(t)
	var a, b Account
	o.expect(t, 200, "POST", "/v1/accounts", `{"name":"Acme"}`, &a)
	o.expect(t, 200, "POST", "/v1/accounts", `{"name":"Beta"}`, &b)
	base := "/v1/accounts/" + a.ID + "/keys"
	var k, is Key
	o.expect(t, 200, "POST", base, `{"name":"ci","scopes":["models:call"],"models":["small","large"],"routes":["chat"],"networks":["::ffff:10.0.0.0/104","192.0.2.7"],
		"cap":"5/day","rate":"60/minute","expires":"2100-01-01T00:00:00Z"}`, &k)
	if k.Secret == "" || !slices.Equal(k.Models, []string{"large", "small"}) || len(k.Networks) != 2 || k.Networks[0].String() != "10.0.0.0/8" || k.Cap.String() != "5.00/day" ||
		k.Rate.String() != "60/minute" || k.Expires.Year() != 2100 {
		t.Errorf("%+v", k)
	}
	one := base + "/" + k.ID
	// What is not named stays, what is empty is lifted.
	if o.expect(t, 200, "PATCH", one, `{"name":"laptop","models":[],"cap":"","expires":""}`, &is); is.Name != "laptop" || is.Models != nil || !is.Cap.IsZero() || !is.Expires.IsZero() ||
		!slices.Equal(is.Routes, k.Routes) || is.Rate != k.Rate || len(is.Networks) != 2 || is.Secret != "" {
		t.Errorf("%+v", is)
	}
	var next Key
	if o.expect(t, 200, "POST", one+"/rotate", `{"overlap":"1h"}`, &next); next.Secret == "" || next.Secret == k.Secret || next.ID != k.ID || next.Overlap.Before(time.Now().Add(59*time.Minute)) || next.Rotated.IsZero() {
		t.Errorf("%+v", next)
	}
	o.expect(t, 200, "POST", one+"/rotate", `{}`, &is)
	for _, body := range []string{
		`{"cap":"5/year"}`, `{"cap":5}`, `{"cap":"-5/day"}`, `{"rate":"60"}`, `{"networks":["10.0.0.1/8"]}`, `{"networks":"10.0.0.0/8"}`, `{"models":[""]}`, `{"routes":["a\nb"]}`, `{"expires":"tomorrow"}`,
		`{"expires":"2001-01-01T00:00:00Z"}`, `{"name":""}`, `{"scopes":["A"]}`, `{"id":"key_x"}`, `{"account":"` + b.ID + `"}`, `{"revoked":""}`, `{"sum":"AA=="}`, `[]`, ``,
		`{"models":["` + strings.Repeat(`m","`, 70) + `"]}`,
	} {
		problemIn(t, o.do(t, "PATCH", one, body), 400, "invalid")
		if body != `{"name":""}` { // which is the default of a new one
			problemIn(t, o.do(t, "POST", base, body), 400, "invalid")
		}
	}
	problemIn(t, o.do(t, "POST", one+"/rotate", `{"overlap":"soon"}`), 400, "invalid")
	problemIn(t, o.do(t, "POST", one+"/rotate", `{"overlap":"1000h"}`), 400, "invalid")
	for _, path := range []string{"/v1/accounts/" + b.ID + "/keys/" + k.ID, base + "/none", "/v1/accounts/none/keys/" + k.ID} {
		problemIn(t, o.do(t, "PATCH", path, `{"name":"x"}`), 404, "not_found")
		problemIn(t, o.do(t, "DELETE", path, ""), 404, "not_found")
		problemIn(t, o.do(t, "POST", path+"/rotate", `{}`), 404, "not_found")
	}
	var list []Key
	if o.expect(t, 200, "GET", base, "", &list); len(list) != 1 || list[0].Name != "laptop" {
		t.Errorf("%+v", list)
	}
	for _, path := range []string{base, "/v1/accounts/" + a.ID, "/v1/config"} {
		body := o.do(t, "GET", path, "").Body.String()
		for _, secret := range []string{k.Secret, next.Secret} {
			if strings.Contains(body, secret) {
				t.Errorf("%s shows a key", path)
			}
		}
	}
	o.expect(t, 200, "DELETE", one, "", &is)
	problemIn(t, o.do(t, "PATCH", one, `{"name":"x"}`), 409, "conflict")
	problemIn(t, o.do(t, "POST", one+"/rotate", `{}`), 409, "conflict")

	var off, on Account
	o.expect(t, 200, "POST", "/v1/accounts/"+a.ID+"/disable", "", &off)
	if o.expect(t, 200, "POST", "/v1/accounts/"+a.ID+"/enable", "", &on); off.Status != "disabled" || on.Status != "active" {
		t.Errorf("%s, %s", off.Status, on.Status)
	}
	problemIn(t, o.do(t, "POST", "/v1/accounts/none/enable", ""), 404, "not_found")
	if err := o.server.Storage().Accounts.CloseAccount(t.Context(), a.ID); err != nil {
		t.Fatal(err)
	}
	problemIn(t, o.do(t, "POST", "/v1/accounts/"+a.ID+"/enable", ""), 409, "conflict")
}

// TestRefund: a charge is given back once, to who paid it, and never more than it was.
func TestRefund(t *testing.T) {
	t.Parallel()
	o := operate(t)
	var a, b Account
	o.expect(t, 200, "POST", "/v1/accounts", `{"name":"Acme"}`, &a)
	o.expect(t, 200, "POST", "/v1/accounts", `{"name":"Beta"}`, &b)
	base := "/v1/accounts/" + a.ID
	o.expect(t, 200, "POST", base+"/credits", `{"amount":"20","key":"evt_1"}`, nil)
	var k Key
	o.expect(t, 200, "POST", base+"/keys", `{"name":"ci","cap":"15/month"}`, &k)
	l := o.server.Storage().Ledger
	price := &exchange.Price{Name: "p"}
	price.Per[exchange.Requests], price.Set[exchange.Requests] = exchange.Pico(5e12), true
	var usage exchange.Usage
	usage.Units[exchange.Requests] = 2
	h, err := l.Hold(context.Background(), ledger.HoldRequest{Account: a.ID, Price: price, Max: usage, Key: k.ID, Cap: k.Cap})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Settle(context.Background(), h.ID, ledger.Settlement{Usage: usage}); err != nil {
		t.Fatal(err)
	}
	var list []Key
	if o.expect(t, 200, "GET", base+"/keys", "", &list); list[0].Spent.Month.String() != "10.00" || list[0].Spent.Total.String() != "10.00" || list[0].Spent.Held.Sign() != 0 {
		t.Errorf("%+v", list)
	}
	var part, again, rest Entry
	if o.expect(t, 200, "POST", base+"/refunds", `{"charge":"`+h.ID+`","amount":"4","key":"ticket-1","note":"cut off"}`, &part); part.Kind != "refund" || part.Of != h.ID || part.To != a.ID || part.Balance.String() != "14.00" {
		t.Errorf("%+v", part)
	}
	if o.expect(t, 200, "POST", base+"/refunds", `{"charge":"`+h.ID+`","amount":"4","key":"ticket-1"}`, &again); again.Seq != part.Seq {
		t.Errorf("%+v", again)
	}
	problemIn(t, o.do(t, "POST", base+"/refunds", `{"charge":"`+h.ID+`","key":"ticket-2"}`), 409, "charge_exceeded") // the whole, of which a part was given back
	problemIn(t, o.do(t, "POST", base+"/refunds", `{"charge":"`+h.ID+`","amount":"6.000000000001","key":"ticket-2"}`), 409, "charge_exceeded")
	problemIn(t, o.do(t, "POST", base+"/refunds", `{"charge":"`+h.ID+`","amount":"5","key":"ticket-1"}`), 409, "key_used")
	problemIn(t, o.do(t, "POST", base+"/refunds", `{"charge":"`+h.ID+`","amount":"-1","key":"ticket-2"}`), 400, "invalid")
	problemIn(t, o.do(t, "POST", base+"/refunds", `{"charge":"`+h.ID+`","amount":"0","key":"ticket-2"}`), 400, "invalid")
	problemIn(t, o.do(t, "POST", base+"/refunds", `{"charge":"`+h.ID+`","amount":"1"}`), 400, "invalid")
	for _, path := range []string{"/v1/accounts/" + b.ID, "/v1/accounts/none"} {
		problemIn(t, o.do(t, "POST", path+"/refunds", `{"charge":"`+h.ID+`","amount":"1","key":"ticket-3"}`), 404, "not_found")
	}
	for _, charge := range []string{"", "none", "evt_1", "a b"} {
		problemIn(t, o.do(t, "POST", base+"/refunds", `{"charge":"`+charge+`","key":"ticket-4"}`), 404, "not_found")
	}
	if o.expect(t, 200, "POST", base+"/refunds", `{"charge":"`+h.ID+`","amount":"6","key":"ticket-5"}`, &rest); rest.Balance.String() != "20.00" {
		t.Errorf("%+v", rest)
	}
	var entries []Entry
	if o.expect(t, 200, "GET", base+"/entries", "", &entries); len(entries) != 4 || entries[1].Key != k.ID || entries[3].Of != h.ID {
		t.Errorf("%+v", entries)
	}
	var v Verification
	if o.expect(t, 200, "GET", "/v1/ledger/verify", "", &v); !v.OK || v.Refunded.String() != "10.00" {
		t.Errorf("%+v", v)
	}
}
