package admin

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-gateway/postern/gateway/config"
)

func TestToken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := &config.Config{Admin: &config.Admin{}, State: config.State{Dir: filepath.Join(dir, "data")}}
	first, err := Token(cfg)
	if err != nil || len(first) != 64 {
		t.Fatal(first, err)
	}
	again, err := Token(cfg)
	if err != nil || again != first {
		t.Fatal(again, err)
	}
	path := filepath.Join(dir, "data", "admin.token")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Token(cfg); err == nil {
		t.Error("a token of five letters was taken")
	}
}
