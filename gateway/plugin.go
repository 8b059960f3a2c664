package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/postern-gateway/postern/gateway/project"
)

// shell is what `postern plugin` may use of the program. What it serves, it serves as run does.
func (a *App) shell() *project.Shell {
	s := &project.Shell{Context: a.Context, Stdout: a.Stdout, Stderr: a.Stderr, ABIs: abis, Child: a.Child}
	s.Serve = func(ctx context.Context, dir string, changed <-chan struct{}) error {
		app := *a
		app.Context = ctx
		return (&runCommand{Dir: dir, changed: changed}).Run(&app)
	}
	if dir, err := os.UserCacheDir(); err == nil {
		s.CacheDir = filepath.Join(dir, "postern", "plugins")
	}
	return s
}
