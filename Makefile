# Two commands matter: `make run` and `make test`. Everything they need beyond Go, git and make they install themselves.

GO      ?= go
BIN     := bin
PLUGINS := $(notdir $(wildcard plugins/*))
WASM    := $(foreach p,$(PLUGINS),plugins/$(p)/$(p).wasm)
SOURCES := $(shell find gateway sdk examples -name '*.go' -not -name '*_test.go' -not -path '*/node_modules/*' 2>/dev/null) go.mod go.sum
# Texts that the program holds, for new projects of plugins.
SOURCES += $(wildcard gateway/project/scaffold/* sdk/*/build sdk/*/postern.* sdk/*/Cargo.toml sdk/*/src/*.rs sdk/*/example/* sdk/*/example/src/* sdk/*/assembly/*.ts)

.PHONY: all run test unit lint fuzz bench microbench conformance soak faults screenshots plugins clean

all: $(BIN)/postern $(BIN)/demo plugins

# Builds gateway and plugins, starts the sandbox provider, makes a demo account with a balance and a key, and serves.
run: all
	@exec $(BIN)/demo -postern $(BIN)/postern

$(BIN)/postern: $(SOURCES)
	$(GO) build -o $@ ./gateway

$(BIN)/demo: $(SOURCES)
	$(GO) build -o $@ ./examples/sandbox/demo

plugins: $(WASM)

define plugin_rule
plugins/$(1)/$(1).wasm: $(wildcard plugins/$(1)/*.go) $(wildcard plugins/$(1)/plugin.hcl) $(wildcard sdk/go/*.go) $(wildcard sdk/abi/*.go) go.mod
	GOOS=wasip1 GOARCH=wasm $(GO) build -trimpath -buildvcs=false -ldflags='-s -w' -buildmode=c-shared -o $$@ ./plugins/$(1)
endef
$(foreach p,$(PLUGINS),$(eval $(call plugin_rule,$(p))))

# Tests look for races, but not in these packages: they read WebAssembly, which starts no goroutine, shares nothing, and would be
# most of what the tests do. gateway/rules_test.go sees to it that this stays so.
UNRACED := gateway/plugin/admission gateway/plugin/body
RACE    := -race $(foreach p,$(UNRACED),-gcflags=github.com/postern-gateway/postern/$(p)=-race=false)

# Everything a change has to pass, races included. Installs what the tests need.
test: all
	@sh .ci/tools
	$(BIN)/tools/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg -- $(RACE) -timeout 30m ./...

# The same without the race detector, for a quick look.
unit: all
	$(GO) test ./...

lint:
	@sh .ci/tools lint
	$(GO) vet ./...
	$(BIN)/tools/golangci-lint run ./...

# Each fuzz target for a while: make fuzz FUZZTIME=1m
FUZZTIME ?= 20s
fuzz:
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p || exit 1; \
	  done; \
	done

# Measures Postern beside other proxies, which it installs where they can be had, and writes gateway/bench/results. Some cells only:
# make bench BENCH='-only h1'. The machine should do nothing else meanwhile.
bench: all
	@sh .ci/tools bench
	@mkdir -p $(BIN)/bench
	$(GO) build -o $(BIN)/bench/harness ./gateway/bench
	cd gateway/bench/plain && $(GO) build -o $(CURDIR)/$(BIN)/bench/plain .
	sdk/c/build gateway/bench/proxywasm $(BIN)/bench/apikey.wasm || echo "without the filter in C, Envoy is measured without policies only"
	@$(BIN)/bench/harness -out gateway/bench/results -readme README.md $(BENCH)

# Every benchmark, with allocations.
microbench: all
	$(GO) test -run '^$$' -bench . -benchmem ./...

# The suites that others wrote for servers and proxies, whole, through the gateway, and 10,000 streams of events. `make test` runs a
# short form of each.
conformance: all
	@sh .ci/tools
	POSTERN_SOAK=1 $(GO) test -v -timeout 3h -run 'H2spec|RPC|WebSocket|Tunnel|EventStreams' ./gateway/listener ./gateway/conformance

# The long forms of the reload, crash and load tests.
soak: all
	POSTERN_SOAK=1 $(GO) test $(RACE) -timeout 2h -run 'Reload|Hammer|Parallel' ./gateway/...

faults: all
	POSTERN_SOAK=1 $(GO) test $(RACE) -timeout 2h -run 'Kill|Crash|Fault' ./gateway/...

# Every page of the console on a phone and on a desk, light and dark, in both languages, into bin/screenshots.
screenshots: all
	@sh .ci/tools
	POSTERN_SCREENSHOTS=$(CURDIR)/$(BIN)/screenshots $(GO) test -count 1 -timeout 15m -run TestConsoleInBrowser ./gateway

clean:
	rm -rf $(BIN) $(WASM)
