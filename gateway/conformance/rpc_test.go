package conformance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// The suite of the Connect project plays a client and a server of Connect, gRPC and gRPC-Web against one another. Its runner starts
// the one under test by a command; here that command starts the suite's own reference program with a gateway before or behind it.
//
//	server: the runner's client -> gateway -> referenceserver     (how the gateway carries requests, cases for servers)
//	client: referenceclient -> gateway -> the runner's server     (how it carries replies, raw and broken ones too, cases for clients)
//
// The programs talk in protobuf messages, of which a few fields are looked at and changed.

// hop is the environment variable that says what the gateway speaks with the reference server; empty: what the client speaks with it.
const hop = "POSTERN_CONFORMANCE_HOP"

// versions are the HTTP versions by their numbers in the suite's messages.
var versions = map[uint64]string{1: "http1", 2: "http2", 3: "http3"}

// TestRPC runs the suite of Connect, gRPC and gRPC-Web. No case may fail and none is left out.
func TestRPC(t *testing.T) {
	t.Parallel()
	runner := tool(t, "connectconformance")
	tool(t, "referenceserver")
	tool(t, "referenceclient")
	gateway := program(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, mode string
		hop        string // what the gateway speaks with the server
		features   string // of the suite
		least      int    // cases that must pass in the whole form, and a twentieth of them in the short one
	}{
		{name: "server", mode: "server", features: everything, least: 13_000},
		{name: "client", mode: "client", features: everything, least: 15_000},
		{name: "to-http1", mode: "server", hop: "http1", features: throughHTTP1, least: 10_000},
		{name: "to-http2", mode: "server", hop: "http2", features: everything, least: 13_000},
		{name: "to-http3", mode: "server", hop: "http3", features: everything, least: 13_000},
	} {
		t.Run(test.name, func(t *testing.T) {
			features := filepath.Join(t.TempDir(), "features.yaml")
			kinds := test.features + "  codecs: [CODEC_PROTO]\n  compressions: [COMPRESSION_IDENTITY]\n"
			if whole() {
				kinds = test.features + "  codecs: [CODEC_PROTO, CODEC_JSON]\n  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP, COMPRESSION_BR, COMPRESSION_ZSTD, COMPRESSION_DEFLATE, COMPRESSION_SNAPPY]\n"
			}
			if err := os.WriteFile(features, []byte(kinds), 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"--mode", test.mode, "--conf", features, "--max-servers", "2"}
			if test.mode == "server" {
				args = append(args, "--parallel", "16")
			}
			args = append(args, strings.Fields(os.Getenv("POSTERN_CONFORMANCE_ARGS"))...)
			cmd := exec.CommandContext(t.Context(), runner, append(args, "--", self)...)
			cmd.Env = append(os.Environ(), role+"="+test.mode, gatewayBinary+"="+gateway, hop+"="+test.hop)
			cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
			cmd.WaitDelay = 30 * time.Second
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			passed := regexp.MustCompile(`(\d+) passed`).FindSubmatch(out)
			if passed == nil {
				t.Fatalf("no summary:\n%s", out)
			}
			count, _ := strconv.Atoi(string(passed[1]))
			t.Logf("%d cases passed", count)
			least := test.least
			if !whole() {
				least /= 20
			}
			if count < least && os.Getenv("POSTERN_CONFORMANCE_ARGS") == "" {
				t.Errorf("only %d cases ran, of %d at least:\n%s", count, least, out)
			}
		})
	}
}

// everything is what the suite knows of; codecs and compressions follow it. A gateway asks clients for certificates and shows its
// own to servers.
const everything = `features:
  versions: [HTTP_VERSION_1, HTTP_VERSION_2, HTTP_VERSION_3]
  protocols: [PROTOCOL_CONNECT, PROTOCOL_GRPC, PROTOCOL_GRPC_WEB]
  supportsHalfDuplexBidiOverHttp1: true
  supportsTlsClientCerts: true
`

// throughHTTP1 is what servers of HTTP/1.1 can do of it, whatever the client speaks: no gRPC and nothing in full duplex.
const throughHTTP1 = `features:
  versions: [HTTP_VERSION_1, HTTP_VERSION_2, HTTP_VERSION_3]
  protocols: [PROTOCOL_CONNECT, PROTOCOL_GRPC_WEB]
  streamTypes: [STREAM_TYPE_UNARY, STREAM_TYPE_CLIENT_STREAM, STREAM_TYPE_SERVER_STREAM, STREAM_TYPE_HALF_DUPLEX_BIDI_STREAM]
  supportsHalfDuplexBidiOverHttp1: true
  supportsTlsClientCerts: true
`

func contextOfSignals() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
}

// serverUnderTest is a reference server with a gateway before it. It reads one ServerCompatRequest and answers it.
func serverUnderTest(ctx context.Context) (err error) {
	request, err := readMessage(os.Stdin)
	if err != nil {
		return err
	}
	version := versions[number(request, 2)]
	secure := number(request, 4) == 1
	behind := os.Getenv(hop)
	if behind == "" {
		behind = version
	}
	// A client's certificate ends at the gateway, which has none of its own here.
	inner := replaced(request, map[protowire.Number]any{5: nil, 2: numberOf(behind), 4: uint64(1)})
	if !secure && behind != "http3" {
		inner = replaced(inner, map[protowire.Number]any{4: nil})
	}
	server := exec.Command(filepath.Join(toolFolder(), "referenceserver"))
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	server.Stderr = os.Stderr
	in, err := server.StdinPipe()
	if err != nil {
		return err
	}
	out, err := server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	defer func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, out)
		_ = server.Wait() // the signal ends it
	}()
	if err := writeMessage(in, inner); err != nil {
		return err
	}
	if err := in.Close(); err != nil {
		return err
	}
	reply, err := readMessage(out)
	if err != nil {
		return fmt.Errorf("the reference server's address: %w", err)
	}
	f := front{version: version, behind: behind, host: string(octets(reply, 1)), port: number(reply, 2), roots: octets(reply, 3)}
	if secure {
		creds := octets(request, 7)
		f.cert, f.key, f.clients = octets(creds, 1), octets(creds, 2), octets(request, 5)
	}
	g, err := f.start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.stop()) }()
	host, port := split(g)
	answer := map[protowire.Number]any{1: host, 2: port, 3: nil}
	if secure {
		answer[3] = f.cert
	}
	if err := writeMessage(os.Stdout, replaced(reply, answer)); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// clientUnderTest is a reference client whose requests, each a ClientCompatRequest, all go through gateways: one for each server.
func clientUnderTest(ctx context.Context) (err error) {
	client := exec.Command(filepath.Join(toolFolder(), "referenceclient"), os.Args[1:]...)
	client.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	client.Stderr, client.Stdout = os.Stderr, os.Stdout
	in, err := client.StdinPipe()
	if err != nil {
		return err
	}
	if err := client.Start(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() {
		_ = client.Process.Signal(syscall.SIGTERM)
		_ = os.Stdin.Close()
	})()
	cert, key, err := certificate()
	if err != nil {
		return err
	}
	gateways := map[string]*gateway{}
	defer func() {
		_ = in.Close() // the client ends when it has read everything
		err = errors.Join(err, client.Wait())
		for _, g := range gateways {
			err = errors.Join(err, g.stop())
		}
	}()
	for {
		request, err := readMessage(os.Stdin)
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		version := versions[number(request, 2)]
		creds := octets(request, 9)
		f := front{version: version, behind: version, host: string(octets(request, 6)), port: number(request, 7), roots: octets(request, 8)}
		if len(f.roots) > 0 {
			f.cert, f.key, f.clients, f.ownCert, f.ownKey = cert, key, octets(creds, 1), octets(creds, 1), octets(creds, 2)
		}
		id := fmt.Sprintf("%s %d %t %t", version, f.port, len(f.roots) > 0, len(creds) > 0)
		g, found := gateways[id]
		if !found {
			if g, err = f.start(); err != nil {
				return err
			}
			gateways[id] = g
		}
		host, port := split(g)
		change := map[protowire.Number]any{6: host, 7: port}
		if len(f.roots) > 0 {
			change[8] = cert
		}
		if err := writeMessage(in, replaced(request, change)); err != nil {
			return err
		}
	}
}

func toolFolder() string {
	path, _ := filepath.Abs(filepath.Join("..", "..", "bin", "tools")) // the runner keeps the folder of the test
	return path
}

// front is a gateway between a client and a server of the suite.
type front struct {
	version, behind string // HTTP before and behind it
	host            string // of the server
	port            uint64
	roots           []byte // for the server; nil: cleartext
	cert, key       []byte // the gateway's own; nil: cleartext
	clients         []byte // whose certificates are required; nil: none
	ownCert, ownKey []byte // shown to the server; nil: none
}

// start runs it.
func (f *front) start() (*gateway, error) {
	files := map[string]string{}
	var b strings.Builder
	b.WriteString("telemetry {\n  log {\n    level  = info\n    format = text\n    access = false\n  }\n}\n\nstate \"memory\" {\n}\n")
	fmt.Fprintf(&b, "\nlistener \"public\" {\n  address   = \"127.0.0.1:0\"\n  protocols = [%s]\n  drain     = \"0s\"\n", f.version)
	if f.cert != nil {
		files["cert.pem"], files["key.pem"] = string(f.cert), string(f.key)
		b.WriteString("\n  tls {\n    cert = \"cert.pem\"\n    key  = \"key.pem\"\n")
		if len(f.clients) > 0 {
			files["clients.pem"] = string(f.clients)
			b.WriteString("    client_ca = \"clients.pem\"\n")
		}
		b.WriteString("  }\n")
	}
	scheme := "http"
	if len(f.roots) > 0 {
		scheme = "https"
	}
	fmt.Fprintf(&b, "}\n\nupstream \"reference\" {\n  endpoints = [\"%s://%s\"]\n  protocol  = %s\n", scheme, net.JoinHostPort(f.host, strconv.FormatUint(f.port, 10)), f.behind)
	if len(f.roots) > 0 {
		files["roots.pem"] = string(f.roots)
		b.WriteString("\n  tls {\n    ca = \"roots.pem\"\n")
		if len(f.ownCert) > 0 {
			files["own.pem"], files["own-key.pem"] = string(f.ownCert), string(f.ownKey)
			b.WriteString("    cert = \"own.pem\"\n    key  = \"own-key.pem\"\n")
		}
		b.WriteString("  }\n")
	}
	b.WriteString("}\n\nroute \"all\" {\n  listener = listener.public\n  match    = \"/\"\n  upstream = upstream.reference\n}\n")
	files["config.hcl"] = b.String()
	return startGateway(os.Getenv(gatewayBinary), files, logFile())
}

// logFile is where the gateways of a suite log, if anywhere: the runner takes what is on the standard streams for its own.
var logFile = sync.OnceValue(func() io.Writer {
	if path := os.Getenv("POSTERN_CONFORMANCE_LOG"); path != "" {
		if f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			return f
		}
	}
	return io.Discard
})

// split is a gateway's address.
func split(g *gateway) (host string, port uint64) {
	host, text, _ := net.SplitHostPort(g.addresses["public"])
	port, _ = strconv.ParseUint(text, 10, 16)
	return host, port
}

// certificate makes a certificate for 127.0.0.1 that stands for itself.
func certificate() (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "conformance"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), nil
}

// maxMessage is the longest message taken from a program of the suite.
const maxMessage = 64 << 20

// readMessage reads a message with its length before it.
func readMessage(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxMessage {
		return nil, fmt.Errorf("a message of %d octets", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeMessage(w io.Writer, message []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...))
	return err
}

// fields calls f with each field of a message: its octets as they are and, by its type, its number or its content.
func fields(message []byte, f func(field protowire.Number, whole []byte, value uint64, content []byte)) {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return
		}
		m := protowire.ConsumeFieldValue(field, kind, message[n:])
		if m < 0 {
			return
		}
		var value uint64
		var content []byte
		switch kind {
		case protowire.VarintType:
			value, _ = protowire.ConsumeVarint(message[n:])
		case protowire.BytesType:
			content, _ = protowire.ConsumeBytes(message[n:])
		}
		f(field, message[:n+m], value, content)
		message = message[n+m:]
	}
}

// number is a field of a message; 0 where it is not there.
func number(message []byte, wanted protowire.Number) (v uint64) {
	fields(message, func(field protowire.Number, _ []byte, value uint64, _ []byte) {
		if field == wanted {
			v = value
		}
	})
	return v
}

// octets is a field of a message; nil where it is not there.
func octets(message []byte, wanted protowire.Number) (b []byte) {
	fields(message, func(field protowire.Number, _ []byte, _ uint64, content []byte) {
		if field == wanted {
			b = content
		}
	})
	return b
}

// replaced is a message with other fields: numbers, octets and texts; nil removes one.
func replaced(message []byte, by map[protowire.Number]any) []byte {
	var out []byte
	fields(message, func(field protowire.Number, whole []byte, _ uint64, _ []byte) {
		if _, found := by[field]; !found {
			out = append(out, whole...)
		}
	})
	for _, field := range slices.Sorted(maps.Keys(by)) {
		switch v := by[field].(type) {
		case uint64:
			out = protowire.AppendVarint(protowire.AppendTag(out, field, protowire.VarintType), v)
		case string:
			out = protowire.AppendString(protowire.AppendTag(out, field, protowire.BytesType), v)
		case []byte:
			out = protowire.AppendBytes(protowire.AppendTag(out, field, protowire.BytesType), v)
		}
	}
	return out
}

// numberOf is a version's number in the suite's messages.
func numberOf(version string) uint64 {
	for n, name := range versions {
		if name == version {
			return n
		}
	}
	return 0
}
