package listener

import (
	"encoding/xml"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/postern-gateway/postern/gateway/exchange"
)

// specCases is how many cases h2spec has. One that is left out is no case that passed.
const specCases = 145

// TestH2spec has every case of h2spec pass, over TLS and in cleartext. `sh .ci/tools` installs it.
func TestH2spec(t *testing.T) {
	t.Parallel()
	tool, err := filepath.Abs("../../bin/tools/h2spec")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tool); err != nil {
		if tool, err = exec.LookPath("h2spec"); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("h2spec is not installed: sh .ci/tools")
			}
			t.Skip("h2spec is not installed; to get it: sh .ci/tools")
		}
	}
	alone := cleartextRig() // with HTTP/1.1 beside it, what is no preface is answered in HTTP/1.1
	alone.cfg.Protocols = []exchange.Protocol{exchange.HTTP2}
	for name, cfg := range map[string]*rigConfig{"cleartext": alone, "tls": secureRig()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, cfg.cfg, describe)
			host, port, err := net.SplitHostPort(r.addr)
			if err != nil {
				t.Fatal(err)
			}
			report := filepath.Join(t.TempDir(), "report.xml")
			args := []string{"--host", host, "--port", port, "--timeout", "5", "--junit-report", report}
			if cfg.cfg.TLS != nil {
				args = append(args, "--tls", "--insecure")
			}
			out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput()
			var failed *exec.ExitError
			if err != nil && !errors.As(err, &failed) {
				t.Fatal(err)
			}
			if failed != nil {
				t.Errorf("h2spec: %v\n%s", err, out)
			}
			passed, err := specPassed(report)
			if err != nil {
				t.Fatal(err)
			}
			if passed != specCases {
				t.Errorf("%d of %d cases passed\n%s", passed, specCases, out)
			}
		})
	}
}

// specPassed counts the cases of a report that neither failed nor were left out.
func specPassed(path string) (passed int, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var report struct {
		Suites []struct {
			Cases []struct {
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(b, &report); err != nil {
		return 0, err
	}
	for _, suite := range report.Suites {
		for _, c := range suite.Cases {
			if c.Failure == nil && c.Error == nil && c.Skipped == nil {
				passed++
			}
		}
	}
	return passed, nil
}
