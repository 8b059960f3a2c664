package admin

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/postern-gateway/postern/gateway/config"
)

// Token is the operators' bearer token: the admin block's, or one that is made at the first need and kept in the
// data directory, readable by its owner alone. It is empty where client certificates stand in for it.
func Token(cfg *config.Config) (string, error) {
	if cfg.Admin == nil {
		return "", errors.New("the configuration has no admin block")
	}
	if cfg.Admin.Token != "" || cfg.Admin.ClientCA != "" {
		return cfg.Admin.Token, nil
	}
	if cfg.State.Dir == "" {
		return "", fmt.Errorf("%s: the admin block needs a token, since the state backend %q has no folder to keep one in", cfg.Admin.Range, cfg.State.Backend)
	}
	path := filepath.Join(cfg.State.Dir, "admin.token")
	old, err := os.ReadFile(path)
	switch {
	case err == nil && len(old) >= 32:
		return string(old), nil
	case err == nil:
		return "", fmt.Errorf("%s holds no token: remove it and one is made", path)
	case !errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("read the admin token: %w", err)
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	token := hex.EncodeToString(raw)
	if err := os.MkdirAll(cfg.State.Dir, 0o700); err != nil {
		return "", fmt.Errorf("keep the admin token: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("keep the admin token: %w", err)
	}
	_, err = f.WriteString(token)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("keep the admin token: %w", err)
	}
	return token, nil
}
