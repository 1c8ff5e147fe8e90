# Everything is built static, without cgo. What the tests need beyond Go is installed by deps.
export CGO_ENABLED ?= 0
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo dev)
FLAGS := -trimpath -ldflags "-s -w -X main.version=$(VERSION)"
PROGRAMS := chancery chanceryd chancery-keyroom crlcheck
BIN := bin
DIST := dist
SUDO := $(shell [ $$(id -u) = 0 ] || echo sudo)

.PHONY: build test man reference demo bench pairs fuzz deps deb lint lint-deep clean

build:
	@mkdir -p $(BIN)
	go build $(FLAGS) -o $(BIN)/ $(addprefix ./cmd/,$(PROGRAMS))

# Tests read results back with tools that did not write them. A missing one is installed, or is an error.
# RUNLEVEL=1 keeps the packages from starting servers of their own.
deps:
	@missing=; for tool in openssl:openssl git:git python3:python3 /usr/bin/jsonschema:python3-jsonschema strace:strace curl:curl gcc:gcc ssh-keygen:openssh-client /usr/sbin/sshd:openssh-server ldapsearch:ldap-utils /usr/sbin/slapd:slapd \
		flock:util-linux unshare:util-linux mount:mount setpriv:util-linux systemd-analyze:systemd /lib/systemd/systemd:systemd \
		/usr/sbin/nft:nftables lintian:lintian file:file /sbin/ip:iproute2 script:bsdutils groff:groff-base /usr/share/bash-completion/bash_completion:bash-completion zsh:zsh fish:fish /usr/sbin/nginx:nginx-light certtool:gnutls-bin pk12util:libnss3-tools keytool:default-jre-headless jq:jq node:nodejs npm:npm sslscan:sslscan age:age promtool:prometheus; do \
		command -v $${tool%%:*} >/dev/null || missing="$$missing $${tool##*:}"; done; \
	ruby -rxmlrpc/client -e 0 2>/dev/null || missing="$$missing ruby ruby-xmlrpc"; \
	perl -MRPC::XML::Client -MLWP::Protocol::https -e 0 2>/dev/null || missing="$$missing perl librpc-xml-perl liblwp-protocol-https-perl"; \
	php -r 'exit(extension_loaded("curl") ? 0 : 1);' 2>/dev/null || missing="$$missing php-cli php-curl"; \
	if [ -n "$$missing" ]; then \
		command -v apt-get >/dev/null || { echo "install:$$missing"; exit 1; }; \
		$(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $$missing libc6-dev; fi

lint:
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt:"; echo "$$out"; exit 1; }
	go vet ./...
	go vet -tags crashpoint ./...

# The linters of .golangci.yml; building them takes minutes.
lint-deep:
	go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run ./...

# The race detector needs cgo; the programs themselves do not.
test: deps lint
	CGO_ENABLED=1 go test -count=1 -race -timeout 20m ./...

# The manual pages of chancery, below bin/man.
man: build
	bin/chancery man bin/man

# The pages of the methods and the codes in docs/RPC.md, and docs/openrpc.json; a test says when it is due.
reference:
	go test ./rpc -run TestReference -count=1 -write-reference

demo: build
	go run ./scripts/demo -bin bin -dir demo

# One run, about seven minutes, one table: everything beside a floor measured in the same run.
bench:
	go test -run '^$$' -bench Report -benchtime 1x -timeout 15m ./bench

# Ten million pairs of spellings: grants, store, directory file and ca.revoke agree on which are one name. The tests
# compare a hundredth of it.
pairs:
	go test -run '^$$' -bench Pairs -benchtime 1x ./rpc

# Every fuzzer in the tree for FUZZTIME, one after the other. What one finds is left in testdata/fuzz beside it, and
# fails every go test from then on.
FUZZTIME ?= 30s
fuzz:
	@for dir in $$(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n 1 dirname | sort -u); do \
		for name in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' $$dir/*_test.go); do \
			echo "$$dir $$name"; \
			go test ./$$dir -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -parallel 1 || exit 1; done; done

# Two Debian packages in dist/: chancery, and chancery-crlcheck for hosts. nfpm is built once, in some 15 s.
deb: build
	deploy/debian/build $(BIN) $(DIST)

clean:
	rm -rf bin demo dist
