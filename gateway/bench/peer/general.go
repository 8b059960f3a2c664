//go:build linux

package peer

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

func prepareNginx(_ context.Context, s Site) (plan, error) {
	listen, extra := s.Address, ""
	if s.TLS {
		listen += " ssl http2"
		extra = fmt.Sprintf("    ssl_certificate %s;\n    ssl_certificate_key %s;\n    ssl_protocols TLSv1.2 TLSv1.3;\n    ssl_session_cache shared:s:1m;\n", s.Cert, s.Key)
	}
	buffering := "on"
	if s.Events {
		buffering = "off"
	}
	text := fmt.Sprintf(`daemon off;
worker_processes 1;
pid %[1]s/pid;
error_log stderr error;
events {
  worker_connections 4096;
}
http {
  access_log off;
  server_tokens off;
  tcp_nodelay on;
  keepalive_requests 1000000000;
  keepalive_timeout 75s;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  upstream origin {
    server %[2]s;
    keepalive 256;
    keepalive_requests 1000000000;
  }
  server {
    listen %[3]s;
%[4]s    location / {
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_buffering %[5]s;
      proxy_buffers 8 16k;
      proxy_buffer_size 8k;
    }
  }
}
`, s.Dir, s.Origin, listen, extra, buffering)
	return plan{args: []string{s.tool, "-p", s.Dir, "-c", filepath.Join(s.Dir, "nginx.conf")}}, s.write("nginx.conf", text)
}

func prepareHAProxy(_ context.Context, s Site) (plan, error) {
	bind, option := s.Address, ""
	if s.TLS {
		bind += " ssl crt " + both(s.Cert) + " alpn h2,http/1.1"
	}
	if s.Events {
		option = "  option http-no-delay\n"
	}
	text := fmt.Sprintf(`global
  nbthread 1
  maxconn 4096
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 75s
  option http-keep-alive
  option forwardfor
  http-reuse always
%sfrontend public
  bind %s
  default_backend origin
backend origin
  server origin %s
`, option, bind, s.Origin)
	return plan{args: []string{s.tool, "-db", "-q", "-f", filepath.Join(s.Dir, "haproxy.cfg")}}, s.write("haproxy.cfg", text)
}

func findCaddy(ctx context.Context, t Tools) (Tool, error) {
	path, err := lookup(t, "caddy")
	if err != nil {
		return Tool{}, err
	}
	version, err := built(ctx, path, "github.com/caddyserver/caddy/v2")
	return Tool{Path: path, Version: version}, err
}

func prepareCaddy(_ context.Context, s Site) (plan, error) {
	port := portOf(s.Address)
	site, tls, protocols := "http://:"+port, "", "h1"
	if s.TLS {
		site, tls, protocols = "https://:"+port, fmt.Sprintf("  tls %s %s\n", s.Cert, s.Key), "h1 h2"
	}
	if s.HTTP3 {
		protocols += " h3"
	}
	text := fmt.Sprintf(`{
  admin off
  auto_https off
  persist_config off
  log {
    level ERROR
  }
  servers {
    protocols %s
  }
}
%s {
  bind 127.0.0.1
%s  reverse_proxy %s {
    transport http {
      keepalive_idle_conns 1024
      keepalive_idle_conns_per_host 1024
    }
  }
}
`, protocols, site, tls, s.Origin)
	env := []string{"XDG_DATA_HOME=" + s.Dir, "XDG_CONFIG_HOME=" + s.Dir}
	return plan{args: []string{s.tool, "run", "--adapter", "caddyfile", "--config", filepath.Join(s.Dir, "Caddyfile")}, env: env}, s.write("Caddyfile", text)
}

func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

func prepareEnvoy(wasm bool) func(context.Context, Site) (plan, error) {
	return func(_ context.Context, s Site) (plan, error) {
		p := plan{args: []string{s.tool, "-c", filepath.Join(s.Dir, "envoy.yaml"), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"}}
		tls, filter := "", ""
		if s.TLS {
			tls = fmt.Sprintf(`
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates:
            - certificate_chain: { filename: %q }
              private_key: { filename: %q }`, s.Cert, s.Key)
		}
		if wasm {
			p.header = [][2]string{{"authorization", "Bearer " + wasmKey}}
			filter = wasmFilter(s)
		}
		text := fmt.Sprintf(`static_resources:
  listeners:
  - name: public
    address: { socket_address: { address: 127.0.0.1, port_value: %s } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: public
          codec_type: AUTO
          generate_request_id: false
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: { prefix: "/" }
                route: { cluster: origin, timeout: 0s }
          http_filters:%s
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router%s
  clusters:
  - name: origin
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: origin
      endpoints:
      - lb_endpoints:
        - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: %s } } }
`, portOf(s.Address), filter, tls, portOf(s.Origin))
		return p, s.write("envoy.yaml", text)
	}
}
