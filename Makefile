# Run make without a target for a list of targets.
.DEFAULT_GOAL := help

GO          ?= go
BIN         := bin
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS     := -s -w -X main.version=$(VERSION)
RUN_CONFORMANCE := $(abspath $(BIN))/conformance/conformance
FUZZTIME    ?= 60s
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/portcullis and bin/portcullis-cni, static binaries.
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/portcullis ./cmd/portcullis-cni

.PHONY: demo
demo: build ## Watch policies decide real packets between two nodes made for it (flags: DEMO='--topology bridge').
	$(BIN)/portcullis demo $(DEMO)

.PHONY: test
test: tools lint ## Run every test, with packets in namespaces of their own and the race detector.
	$(GO) test -race -timeout 15m ./...

.PHONY: conformance-build
conformance-build: conformance-tools
	cd testcases/conformance && GOGC=400 $(GO) build -o $(RUN_CONFORMANCE) ./cmd/conformance

.PHONY: conformance-control
conformance-control: conformance-build ## Show that the upstream suite fails where no agent runs.
	cd testcases/conformance && $(RUN_CONFORMANCE) --agent none

.PHONY: conformance
conformance: $(if $(CLUSTER),conformance-build,conformance-control) ## Run the upstream network policy suite (flags: CONFORMANCE='--topology bridge'; CLUSTER=kubeconfig for a real cluster).
	cd testcases/conformance && $(RUN_CONFORMANCE) $(if $(CLUSTER),--kubeconfig $(abspath $(CLUSTER))) $(CONFORMANCE)

.PHONY: conformance-all
conformance-all: conformance-control ## Run it in five clusters, in which each pair of topology, family, kube-proxy mode and deny mode occurs.
	cd testcases/conformance && $(RUN_CONFORMANCE) --all $(CONFORMANCE)

.PHONY: quick-start
quick-start: conformance-build ## Do what the README's quick start says, as it is written, and compare what it prints.
	cd testcases/conformance && $(RUN_CONFORMANCE) --quick-start ../../README.md $(CONFORMANCE)

.PHONY: conformance-test
conformance-test: ## Check and test the programs that the upstream suite runs on.
	cd testcases/conformance && GOGC=400 $(GO) vet ./... && $(GO) run $(STATICCHECK) ./... && $(GO) test ./process ./progress ./cmd/... ./scenario ./node ./container ./quickstart ./cluster

.PHONY: test-vm
test-vm: vm-tools ## Run a selection of the packet tests on Debian's kernel 6.1, in an emulated machine (flags: VM='--kernel 6.12 --set all'; VM='--set conformance' for the upstream specs with SCTP).
	$(GO) run ./testcases/vm $(VM)

.PHONY: image
image: ## Write bin/portcullis-image.tar, an OCI archive for amd64 and arm64, without Docker.
	cd manifests/image && SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || echo 0) $(GO) run . --out $(abspath $(BIN))/portcullis-image.tar --version $(VERSION) --revision "$$(git rev-parse HEAD 2>/dev/null)"

.PHONY: manifests-test
manifests-test: ## Check the manifests, the Helm chart and the image.
	for d in image check; do (cd manifests/$$d && GOGC=400 $(GO) vet ./... && $(GO) run $(STATICCHECK) ./... && $(GO) test -count=1 ./...) || exit 1; done

.PHONY: browser-test
browser-test: browser-tools ## Test the page of `portcullis matrix -o html` in headless Chromium.
	$(GO) vet -tags browser ./cmd/portcullis/matrixpage
	$(GO) test -count=1 -tags browser ./cmd/portcullis/matrixpage

.PHONY: picture
picture: browser-tools ## Take the README's picture of that page anew.
	$(GO) test -count=1 -tags browser ./cmd/portcullis/matrixpage -run Picture -update

.PHONY: lint
lint: ## Check formatting, go vet and staticcheck.
	@test -z "$$(gofmt -l agent cmd manifests nft policy testcases)" || { gofmt -d agent cmd manifests nft policy testcases; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

.PHONY: tools
tools: WANT = nft:nftables cc:gcc cc:libc6-dev
tools: ## Install what the tests need and this machine lacks: nft and a C compiler (Debian; root).
	$(install)

.PHONY: conformance-tools
conformance-tools: WANT = nft:nftables iptables:iptables
conformance-tools: ## Install what the upstream suite needs and this machine lacks: nft and iptables (Debian; root).
	$(install)

.PHONY: browser-tools
browser-tools: WANT = chromium:chromium
browser-tools: ## Install what browser-test needs and this machine lacks: Chromium (Debian; root).
	$(install)

.PHONY: vm-tools
vm-tools: WANT = nft:nftables qemu-system-x86_64:qemu-system-x86 xz:xz-utils
vm-tools: ## Install what test-vm needs and this machine lacks: nft, qemu and xz (Debian; root).
	$(install)

# install takes WANT, a list of command:package.
define install
	@missing=; for w in $(WANT); do command -v $${w%:*} >/dev/null || missing="$$missing $${w#*:}"; done; \
	test -z "$$missing" || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { echo "please install: $$missing" >&2; exit 1; }; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; }
endef

.PHONY: bench
bench: ## Measure the data path and the control path, and print tables with ratios (flags: BENCH='--only new- --json all.json --svg curves').
	$(GO) run ./testcases/bench $(BENCH)

.PHONY: bench-quick
bench-quick: ## The same with fewer sizes and rounds, in under 3 minutes.
	$(GO) run ./testcases/bench --quick $(BENCH)

.PHONY: bench-go
bench-go: ## Run the Go benchmarks.
	$(GO) test -run '^$$' -bench . -benchmem ./policy ./nft/... ./agent/... ./testcases/...

.PHONY: soak
soak: SOAK_FULL = -soak.starts=1000 -soak.restarts=500 -soak.tampers=20 -soak.churn=10m -soak.table
soak: tools ## Run the soak tests in full, about 15 minutes, and print a table of what they counted (flags: SOAK='-soak.seed=7').
	$(GO) test -count=1 -timeout 2h -v ./testcases/soak -args $(SOAK_FULL) $(SOAK)

.PHONY: fuzz
fuzz: ## Run every fuzz test for a minute (flags: FUZZTIME=10s).
	@files=$$($(GO) list -f '{{$$p := .}}{{range .TestGoFiles}}{{$$p.ImportPath}}={{$$p.Dir}}/{{.}} {{end}}{{range .XTestGoFiles}}{{$$p.ImportPath}}={{$$p.Dir}}/{{.}} {{end}}' ./...) || exit 1; \
	for f in $$files; do for t in $$(sed -nE 's/^func (Fuzz[[:alnum:]_]*)\(.*/\1/p' "$${f#*=}"); do \
	  echo "== $${f%%=*} $$t"; $(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) "$${f%%=*}" || exit 1; done; done

.PHONY: clean
clean: ## Remove what was built.
	rm -rf $(BIN)
