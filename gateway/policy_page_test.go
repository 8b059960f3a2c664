package main

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-gateway/postern/gateway/privacy"
	"github.com/postern-gateway/postern/gateway/privacy/notice"
)

// TestPolicyVersions: a running gateway keeps the policy it runs with, takes no other text under the same version, and goes
// on serving; under a new version it takes it, and the old one stays to be read.
func TestPolicyVersions(t *testing.T) {
	t.Parallel()
	dir := workdir(t, nil)
	n := startIn(t, dir)
	file := filepath.Join(dir, "config.hcl")
	apply := func() error {
		t.Helper()
		cfg, err := n.load()
		if err != nil {
			t.Fatal(err)
		}
		return n.Apply(t.Context(), cfg)
	}
	versions := func() (list []string) {
		t.Helper()
		editions, err := n.Policies().List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range editions {
			list = append(list, e.Version)
		}
		return list
	}
	if got := versions(); len(got) != 1 || got[0] != "1" {
		t.Fatalf("kept are %v", got)
	}
	if err := apply(); err != nil {
		t.Errorf("the same again: %v", err)
	}

	replaceIn(t, file, `recipient = "the built-in sandbox"`, `recipient = "Somebody Else Ltd"`)
	var changed *notice.ChangedError
	if err := apply(); !errors.As(err, &changed) || !strings.Contains(err.Error(), `config.hcl:`) || !strings.Contains(err.Error(), `version "1"`) {
		t.Fatalf("another recipient under the same version: %v", err)
	}
	resp, err := n.client(t, "http2").Get(n.url + "/")
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	_ = resp.Body.Close()

	replaceIn(t, file, `version   = "1"`, `version   = "2"`, `effective = "2026-01-01"`, `effective = "2026-02-01"`)
	if err := apply(); err != nil {
		t.Fatal(err)
	}
	if got := versions(); len(got) != 2 || got[0] != "2" {
		t.Errorf("kept are %v", got)
	}
	old, err := n.Policies().Find(t.Context(), "1")
	if err != nil || !strings.Contains(old.Text["en"], "the built-in sandbox") || strings.Contains(old.Text["en"], "Somebody Else") {
		t.Error(old, err)
	}
}

func TestPrivacyCommands(t *testing.T) {
	t.Parallel()
	dir := root(t)
	run := func(arguments ...string) string {
		t.Helper()
		code, out, errs := command(t, "", append([]string{"privacy"}, arguments...)...)
		if code != 0 {
			t.Fatalf("privacy %v: %s", arguments, errs)
		}
		return out
	}
	var report privacy.Report
	if err := json.Unmarshal([]byte(run("report", "-json", dir)), &report); err != nil {
		t.Fatal(err)
	}
	if report.Published == nil || report.Published.Version != "1" || len(report.Routes) < 5 || len(report.Classes) < 5 {
		t.Errorf("%+v", report)
	}
	if out := run("page", "-lang", "zh", "-html", dir); !strings.HasPrefix(out, `<article lang="zh-CN">`) || !strings.Contains(out, "生效") {
		t.Error(out)
	}
	var fields []struct{ Name, Class string }
	if err := json.Unmarshal([]byte(run("fields", "-json")), &fields); err != nil || len(fields) < 40 {
		t.Error(fields, err)
	}
	if out := run("fields"); !strings.Contains(out, "client_address") {
		t.Error(out)
	}
	if code, _, errs := command(t, "", "privacy", "page", smallFolder(t)); code != 1 || !strings.Contains(errs, "no privacy block") {
		t.Error(code, errs)
	}
	if out := run("report", smallFolder(t)); !strings.Contains(out, "no policy is published") {
		t.Error(out)
	}
}
