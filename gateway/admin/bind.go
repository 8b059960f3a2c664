package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/postern-gateway/postern/gateway/certificate"
	"github.com/postern-gateway/postern/gateway/config"
	"github.com/postern-gateway/postern/gateway/exchange"
)

// Bound is the address of an admin block, bound.
type Bound struct {
	net.Listener // nil without an admin block
}

// Bind binds the address of the admin block, if there is one. Who connects waits until Serve answers.
func Bind(cfg *config.Config) (*Bound, error) {
	if cfg.Admin == nil {
		return &Bound{}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Admin.Address)
	if err != nil {
		return nil, fmt.Errorf("admin listener: %w", err)
	}
	return &Bound{l}, nil
}

// Close gives the address back; Serve's stop does so too, and a second time is an error that means nothing.
func (l *Bound) Close() error {
	if l.Listener == nil {
		return nil
	}
	return l.Listener.Close()
}

// Serve answers on the operators' listener until stop is called, which waits for what is under way, 5 s at most.
func (l *Bound) Serve(cfg *config.Config, api *API, log *slog.Logger) (stop func(), err error) {
	srv := &http.Server{Handler: api, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 5 * time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	if cfg.Admin.ClientCA != "" {
		if srv.TLSConfig, err = listenerTLS(cfg, log); err != nil {
			return nil, err
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var err error
		if srv.TLSConfig != nil {
			err = srv.ServeTLS(l, "", "")
		} else {
			err = srv.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			log.Error("admin listener ended", "error", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close() // its time is over
		}
		<-done
	}, nil
}

// listenerTLS is the admin listener's TLS: a certificate of the development CA for its host, for clients that have one of
// client_ca's.
func listenerTLS(cfg *config.Config, log *slog.Logger) (*tls.Config, error) {
	names := []string{"localhost"}
	if host, _, err := net.SplitHostPort(cfg.Admin.Address); err == nil && host != "" {
		names = append(names, host)
	}
	store, err := certificate.Load(certificate.Config{
		Listener: "admin", SelfSigned: names, ClientCA: cfg.Admin.ClientCA, Protocols: []exchange.Protocol{exchange.HTTP1},
		Authority: certificate.NewAuthority(cfg.State.Dir), Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("admin listener: %w", err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return store.TCP(), nil },
	}, nil
}
