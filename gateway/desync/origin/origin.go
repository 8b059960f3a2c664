// Package origin runs the programs that requests are passed on to, for the proof that all read them alike. Its
// main type is Origin.
package origin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"
)

// conf holds the configuration of every origin: what it takes for a request it passes on to the echo, or is one itself.
//
//go:embed conf
var conf embed.FS

// Origin is a program that Postern passes requests on to.
type Origin struct {
	Name string // nginx, nginx-lax, ...; lax ones accept what they can be made to accept
	Dial func(ctx context.Context) (net.Conn, error)
}

// Set is the origins that run.
type Set struct {
	List []Origin

	stop []func() error
}

// Missing is the names of programs that are not installed.
type Missing []string

// Error names them.
func (m Missing) Error() string { return fmt.Sprintf("not installed: %v", []string(m)) }

// Programs are what origins are run with besides Go, by Debian's names.
func Programs() []string { return []string{"nginx", "haproxy", "apache2", "node"} }

// settings is what the templates in conf are filled in with.
type settings struct {
	Dir, Echo, User, Modules, Strict, Lax string
}

// Start starts an origin of Go's and those of some programs, with their files in dir. It returns when each of them accepts
// connections; ctx ends waiting for that. The error is a Missing, with those that could be started running, when programs
// are not installed.
func Start(ctx context.Context, dir string, programs ...string) (*Set, error) {
	o := &Set{}
	ok := false
	defer func() {
		if !ok {
			_ = o.Stop() // of what was started; the reason is returned
		}
	}()
	echo, err := o.serve(ctx, Echo())
	if err != nil {
		return nil, err
	}
	direct, err := o.serve(ctx, Echo())
	if err != nil {
		return nil, err
	}
	o.List = append(o.List, Origin{Name: "go", Dial: dialer("tcp", direct)})
	s := settings{Dir: dir, Echo: echo, User: "root", Modules: "/usr/lib/apache2/modules"}
	if u, err := user.Current(); err == nil {
		s.User = u.Username
	}
	var missing Missing
	for _, program := range programs {
		path, err := exec.LookPath(program)
		if err != nil {
			path = filepath.Join("/usr/sbin", program) // not in everybody's PATH
			if _, err := os.Stat(path); err != nil {
				missing = append(missing, program)
				continue
			}
		}
		if err := o.run(ctx, program, path, &s); err != nil {
			return nil, err
		}
	}
	ok = true
	if missing != nil {
		return o, missing
	}
	return o, nil
}

// run starts one program, which is two origins.
func (o *Set) run(ctx context.Context, program, path string, s *settings) error {
	unix := func(name string) Origin {
		return Origin{Name: name, Dial: dialer("unix", filepath.Join(s.Dir, name))}
	}
	file := map[string]string{"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "apache2": "apache.conf", "node": "echo.js"}[program]
	full := filepath.Join(s.Dir, file)
	arguments := map[string][]string{
		"nginx":   {"-p", s.Dir, "-e", filepath.Join(s.Dir, "nginx.log"), "-c", full},
		"haproxy": {"-db", "-f", full},
		"apache2": {"-D", "FOREGROUND", "-d", s.Dir, "-f", full},
		"node":    {full, s.Dir},
	}[program]
	list := []Origin{unix(program), unix(program + "-lax")}
	for attempt := 0; ; attempt++ {
		if program == "apache2" {
			// It can not listen on a path. A port that was free a moment ago can be taken: then another is tried.
			var err error
			if s.Strict, err = freePort(ctx); err != nil {
				return err
			}
			if s.Lax, err = freePort(ctx); err != nil {
				return err
			}
			list = []Origin{{Name: "apache", Dial: dialer("tcp", s.Strict)}, {Name: "apache-lax", Dial: dialer("tcp", s.Lax)}}
		}
		err := o.launch(ctx, program, path, arguments, full, s, list)
		if err == nil {
			o.List = append(o.List, list...)
			return nil
		}
		if attempt == 2 || program != "apache2" {
			return err
		}
	}
}

// launch writes a program's configuration, starts it and waits until it accepts.
func (o *Set) launch(ctx context.Context, program, path string, arguments []string, full string, s *settings, list []Origin) error {
	text, err := conf.ReadFile("conf/" + filepath.Base(full))
	if err != nil {
		return fmt.Errorf("configure %s: %w", program, err)
	}
	var b bytes.Buffer
	t, err := template.New(program).Parse(string(text))
	if err == nil {
		err = t.Execute(&b, s)
	}
	if err != nil {
		return fmt.Errorf("configure %s: %w", program, err)
	}
	if err := os.WriteFile(full, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("configure %s: %w", program, err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), path, arguments...) //nolint:gosec // one of Programs; ended by Stop
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for _, origin := range list {
		if err := await(ctx, origin, ended); err != nil {
			_ = cmd.Process.Kill()
			log, _ := os.ReadFile(filepath.Join(s.Dir, program+".log")) // where it has one
			return fmt.Errorf("start %s: %w: %s%s", program, err, said.String(), log)
		}
	}
	o.stop = append(o.stop, func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // ends each of them at once
		timer := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		var status *exec.ExitError
		if err := <-ended; err != nil && !errors.As(err, &status) { // a signal is a status too
			return fmt.Errorf("end %s: %w", program, err)
		}
		return nil
	})
	return nil
}

// await returns when an origin accepts connections, its program has ended, or ctx has.
func await(ctx context.Context, o Origin, ended <-chan error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := o.Dial(ctx); err == nil {
			return c.Close()
		}
		select {
		case err := <-ended:
			return fmt.Errorf("it ended: %w", err)
		case <-ctx.Done():
			return errors.New("it does not accept connections")
		case <-tick.C:
		}
	}
}

// serve runs a handler on Go's own server.
func (o *Set) serve(ctx context.Context, h http.Handler) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("start an origin: %w", err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, DisableGeneralOptionsHandler: true}
	var wait sync.WaitGroup
	wait.Go(func() { _ = s.Serve(l) })
	o.stop = append(o.stop, func() error {
		err := s.Close()
		wait.Wait()
		return err
	})
	return l.Addr().String(), nil
}

// Stop ends every origin.
func (o *Set) Stop() error {
	var faults []error
	for i := len(o.stop) - 1; i >= 0; i-- {
		faults = append(faults, o.stop[i]())
	}
	o.stop = nil
	return errors.Join(faults...)
}

// Echo answers with an account of every request it has read to its end. A request that breaks off gets no answer.
func Echo() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		h := w.Header()
		if path, ok := r.Header["Origin-Path"]; ok {
			h.Set("Origin-Path", hex.EncodeToString([]byte(path[0])))
		}
		h.Set("Echo", Account(r.Header.Get("M"), r.Method, len(body), Digest(body), r.RequestURI))
		h.Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "ok")
	})
}

// Digest is the beginning of the hash of a body.
func Digest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:8])
}

func dialer(network, address string) func(ctx context.Context) (net.Conn, error) {
	d := &net.Dialer{Timeout: 5 * time.Second}
	return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, network, address) }
}

func freePort(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// Account is what an origin says of a request it has read to its end: marker, method, length and hash of the body, and
// target. Marker and target are in hexadecimal, so that no program on the way changes them.
func Account(marker, method string, length int, hash, target string) string {
	return strings.Join([]string{
		hex.EncodeToString([]byte(marker)), method, strconv.Itoa(length), hash, hex.EncodeToString([]byte(target)),
	}, ",")
}
