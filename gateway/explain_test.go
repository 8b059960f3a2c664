package main

import (
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	dir := smallFolder(t)
	for _, c := range []struct {
		name      string
		arguments []string
		code      int
		want      []string
		not       []string
	}{
		{"chosen", []string{"GET", "http://localhost:8080/items/7?x=y"}, 0, []string{
			"listener public (:8080), cleartext, config.hcl:3\n",
			"  route.beta matches, but not when request.headers[\"x-beta\"] == \"1\"\n",
			"route.items: GET /items/{id}, config.hcl:12\n", "  id = \"7\"\n",
			"authorize\n  policy.json require accepts_json, policies/json.hcl:2\n",
			"request.headers[\"accept\"] == \"application/json\", or else 406: Accept JSON.\n",
			"to upstream app, timeout 5m\n  http://127.0.0.1:9000\n",
		}, nil},
		{"condition", []string{"-H", "X-Beta: 1", "GET", "/items/7"}, 0, []string{"route.beta: GET /items/{name}", "and its condition holds", "answers 204 itself"}, []string{"route.items"}},
		{"fallback", []string{"POST", "/items/7"}, 0, []string{"route.rest: /"}, nil},
		{"canonical", []string{"GET", "/a/../items/%37"}, 0, []string{"The path is taken as /items/7.\n", "route.items"}, nil},
		{"refused path", []string{"GET", "/a%2fb"}, 0, []string{"400 Bad Request"}, []string{"route."}},
		{"other port", []string{"GET", "http://localhost:81/items/7"}, 0, []string{"No listener answers at http://localhost:81. There are:\n  listener public (:8080), cleartext\n"}, nil},
		{"not a URL", []string{"GET", "items"}, 1, nil, nil},
		{"not a header", []string{"-H", "x", "GET", "/items"}, 1, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := command(t, "", append(append([]string{"explain"}, c.arguments...), dir)...)
			if code != c.code {
				t.Errorf("exit code %d: %s", code, errs)
			}
			for _, w := range c.want {
				if !strings.Contains(out, w) {
					t.Errorf("no %q in:\n%s", w, out)
				}
			}
			for _, w := range c.not {
				if strings.Contains(out, w) {
					t.Errorf("%q in:\n%s", w, out)
				}
			}
		})
	}
}

func TestExplainOutcomes(t *testing.T) {
	t.Parallel()
	text := small[:strings.Index(small, `route "rest"`)]
	dir := folder(t, map[string]string{"config.hcl": text, "policies/json.hcl": smallPolicy})
	if _, out, _ := command(t, "", "explain", "POST", "/items/7", dir); !strings.Contains(out, "405 Method Not Allowed: the path is known, for GET") {
		t.Error(out)
	}
	if _, out, _ := command(t, "", "explain", "GET", "/else", dir); !strings.Contains(out, "404 Not Found") {
		t.Error(out)
	}
}

// TestExplainModels: targets, price, and what a power cut can lose are told where calls are charged, and only there.
func TestExplainModels(t *testing.T) {
	t.Parallel()
	dir := workdir(t, nil)
	for _, c := range []struct {
		method, path string
		want, not    []string
	}{
		{"POST", "/v1/chat/completions", []string{
			"    sandbox-small at upstream sandbox, weight 1\n    price in USD: input 0.15 per million, cached 0.075 per million, output 0.60 per million\n",
			"held for 4096 output tokens", "durability = sync: ", "loses no charge", "on_disconnect = bill_delivered: ",
			"    may use: ledger\n", "within 500ms; a fault denies the request", "sees attributes usage.max",
		}, nil},
		{"GET", "/v1/models", []string{"no upstream is called and nothing is charged"}, []string{"durability", "price"}},
	} {
		code, out, errs := command(t, "", "explain", c.method, c.path, dir)
		if code != 0 {
			t.Error(errs)
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("no %q in:\n%s", w, out)
			}
		}
		for _, w := range c.not {
			if strings.Contains(out, w) {
				t.Errorf("%q in:\n%s", w, out)
			}
		}
	}
}
