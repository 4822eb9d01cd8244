# What there is to do here: `make help`. Everything is driven by cargo; this only strings commands together.

PREFIX ?= /usr/local
DESTDIR ?=
LIBDIR ?= $(PREFIX)/lib
CARGO ?= cargo
CC ?= cc
ORTX_CACHE ?= $(HOME)/.cache/ortx
export ORTX_CACHE

TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release
DIST := $(TARGET)/dist
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
SONAME := libortx.so.0
# What a program linked with libortx.a needs besides.
STATIC_LIBS := -lgcc_s -lutil -lrt -lpthread -lm -ldl
C_WARNINGS := -Wall -Wextra -Wpedantic -Werror

.DEFAULT_GOAL := help
.PHONY: help build demo test conformance models bench header install data clean-cache

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

build: ## target/release/: libortx.so, libortx.a, ortx, examples/peer_worker
	@command -v $(CARGO) >/dev/null || { echo "build: no $(CARGO): Rust 1.89 or newer is required (https://rustup.rs)"; exit 1; }
	@echo "build: the library with link-time optimisation, as people install it (a few minutes the first time)"
	$(CARGO) rustc --profile dist --lib --crate-type cdylib,staticlib
	@echo "build: the ortx command and the examples"
	$(CARGO) build --release --workspace --bins --examples
	@# Cargo hard-links its outputs: remove first, or the copy would write into its own files.
	@rm -f $(RELEASE)/libortx.so $(RELEASE)/libortx.a
	@cp $(DIST)/libortx.so $(DIST)/libortx.a $(RELEASE)/
	@ln -sf libortx.so $(RELEASE)/$(SONAME)
	@ls -l --block-size=K $(RELEASE)/libortx.so $(RELEASE)/libortx.a $(RELEASE)/ortx | awk '{ print "build: " $$NF ", " $$5 }'

demo: build ## a C99 program classifies handwritten digits
	@mkdir -p build
	$(CC) -std=c99 -O2 $(C_WARNINGS) -Iinclude c_examples/digits.c -o build/digits -L$(RELEASE) -lortx -Wl,-rpath,$(abspath $(RELEASE))
	@echo "demo: build/digits models/digits.onnx models/digits_test.bin"
	@build/digits models/digits.onnx models/digits_test.bin

test: ## everything that CI checks; sets itself up and names what it skipped
	@scripts/test.sh

data: ## the tests' data in the cache: conformance cases, real models, reference answers
	@scripts/data.sh

conformance: ## only the ONNX backend suite
	@scripts/data.sh conformance
	@mkdir -p build
	@$(CARGO) test -q --test it conformance:: -- --nocapture 2>&1 | tee build/conformance.log | grep -v '^conformance: ' || true
	@grep '^conformance: ' build/conformance.log | tail -1
	@! grep -q '^test result: FAILED\|could not compile' build/conformance.log

models: ## only the real models
	@scripts/data.sh models
	$(CARGO) test --test it models:: -- --nocapture

bench: build ## time the models of ../shared/bench, if it is there, against the peers
	@scripts/bench.sh

header: ## write include/ortx.h anew
	ORTX_BLESS=1 $(CARGO) test --test it header

install: ## into PREFIX (/usr/local), below DESTDIR if set
	@test -f $(RELEASE)/libortx.a || { echo "install: run make build first"; exit 1; }
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(RELEASE)/libortx.so $(DESTDIR)$(LIBDIR)/libortx.so.$(VERSION)
	ln -sf libortx.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libortx.so
	install -m 644 $(RELEASE)/libortx.a $(DESTDIR)$(LIBDIR)/libortx.a
	install -m 644 include/ortx.h include/ortx.hpp $(DESTDIR)$(PREFIX)/include/
	install -m 755 $(RELEASE)/ortx $(DESTDIR)$(PREFIX)/bin/ortx
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$${prefix}/include' '' 'Name: ortx' \
	  'Description: Runs any ONNX model on the CPU and on any OpenCL device' 'Version: $(VERSION)' \
	  'Libs: -L$${libdir} -lortx' 'Libs.private: $(STATIC_LIBS)' 'Cflags: -I$${includedir}' \
	  > $(DESTDIR)$(LIBDIR)/pkgconfig/ortx.pc
	@echo "install: $(DESTDIR)$(PREFIX)"
	@test -n "$(DESTDIR)" || echo "install: run ldconfig (as root) if programs do not find libortx.so.0, or set LD_LIBRARY_PATH=$(LIBDIR)"

clean-cache: ## remove the tests' data and venvs
	rm -rf "$(ORTX_CACHE)"
