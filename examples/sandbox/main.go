// Command sandbox runs an OpenAI-compatible model API without a model, for demonstrations and tests. See sandbox.Sandbox
// for what it answers. It speaks HTTP/1.1, and HTTP/2 with prior knowledge, in the clear: keep it on loopback.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/postern-gateway/postern/examples/sandbox/sandbox"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		os.Exit(1)
	}
}

func run() error {
	address := flag.String("address", "127.0.0.1:9902", "where to listen; port 0 picks a free one")
	pace := flag.Duration("pace", 20*time.Millisecond, "time between two events of a stream")
	key := flag.String("key", os.Getenv("SANDBOX_KEY"), "the API key callers must send; empty: any (default $SANDBOX_KEY)")
	models := flag.String("models", "", "model names to list, with commas between")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	cfg := sandbox.Config{Key: *key, Pace: *pace}
	if *models != "" {
		cfg.Models = strings.Split(*models, ",")
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", *address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", *address, err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: sandbox.Handler(cfg), Protocols: &protocols, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	slog.Info("sandbox provider is ready", "url", "http://"+listener.Addr().String()+"/v1")

	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		deadline, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err := server.Shutdown(deadline)
		if err != nil {
			err = errors.Join(err, server.Close())
		}
		stopped <- err
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	if err := <-stopped; err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
