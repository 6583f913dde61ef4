# What there is to do here. `make help` lists it. GNU make; the recipes are POSIX sh.

# The environments with real Salt are built once (minutes) and kept outside the tree, where no `make clean` finds them.
CACHE ?= $(HOME)/.cache/heat-salt-bootstrap
export HSB_CACHE := $(CACHE)

# What ships: static, by musl.
TARGET ?= x86_64-unknown-linux-musl
export TARGET
# Nothing may raise it unnoticed. The aim is 2,200,000.
MOST_BYTES := 2450000

BUILT := $(or $(CARGO_TARGET_DIR),target)
QUICK := $(BUILT)/debug/heat-salt-bootstrap
STATIC := $(BUILT)/$(TARGET)/release/heat-salt-bootstrap
LAB := cargo run --quiet --locked --package lab --

# ring is partly C, and musl-gcc compiles it for musl. So does gcc, since that C uses no library, provided a
# distribution's hardening does not make it call glibc's.
MUSL_CC := $(shell command -v musl-gcc || echo cc)
ROUNDS ?= 5
# In CI nothing may be skipped.
PREFLIGHT := tests/preflight.sh $(if $(CI),--ci)

.DEFAULT_GOAL := help
.PHONY: help build build-quick static check-static demo demo-failing test test-quick test-salt test-services test-heat format lint scripts bench venvs venv-3006 venv-3008 venv-heat clean test-install bench-install vm

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' Makefile

build: ## the agent, linked as is usual on this machine
	@$(PREFLIGHT) build
	cargo build --release --locked

# A static program gains nothing from position independent code but its size, and nothing from tables for unwinding if it aborts.
STATIC_FLAGS := -C relocation-model=static -C force-unwind-tables=no -C link-arg=-Wl,-T,$(CURDIR)/packaging/no-unwind-tables.ld
static: ## the agent as it ships, static
	@$(PREFLIGHT) build
	@test -d "$$(rustc --print sysroot)/lib/rustlib/$(TARGET)/lib" || ! command -v rustup >/dev/null || rustup target add $(TARGET)
	@$(PREFLIGHT) static
	CC_$(subst -,_,$(TARGET))=$(MUSL_CC) CFLAGS_$(subst -,_,$(TARGET))=-U_FORTIFY_SOURCE RUSTFLAGS='$(STATIC_FLAGS)' \
		cargo build --release --locked --target $(TARGET)
	@ls -l $(STATIC)

check-static: static ## that it is static, starts, and is no larger than allowed
	@tests/static.sh $(STATIC) $(MOST_BYTES)

demo: ## one bootstrap against a real Salt, start to end
	@$(PREFLIGHT) salt
	@$(MAKE) --no-print-directory --jobs 2 build-quick venv-3008
	@$(LAB) demo $(QUICK)

demo-failing: ## the same with a state that fails
	@$(PREFLIGHT) salt
	@$(MAKE) --no-print-directory --jobs 2 build-quick venv-3008
	@$(LAB) demo $(QUICK) --failing

# For the demo, where a minute of optimising is no gain.
build-quick:
	cargo build --locked --bin heat-salt-bootstrap --package heat-salt-bootstrap --package lab

test: ## everything (root; some 25 minutes, and once as long for Salts, Heat and roots)
	@$(PREFLIGHT) quick salt services install heat
	@$(MAKE) --no-print-directory test-quick venvs
	@$(MAKE) --no-print-directory test-salt test-services test-install test-heat

test-quick: format lint scripts ## what needs no Salt
	@$(PREFLIGHT) quick
	cargo test --locked --lib --bins --test panic --test tidy --test plan --test transports --test telling --test check --test heat_faults
	cargo test --locked --package lab --lib --test stand_ins

test-salt: ## against real Salt of both lines
	@$(PREFLIGHT) salt
	cargo test --locked --package lab --test real_salt
	cargo test --locked --test salt

test-services: ## under a real systemd and a real init script
	@$(PREFLIGHT) services
	cargo test --locked --test services

test-install: static ## with real dnf, zypper, apt, rpm and dpkg, on throw-away machines
	@$(PREFLIGHT) install
	HSB_AGENT=$(abspath $(STATIC)) cargo test --locked --test install

test-heat: static ## templates, transports and whole boots with a real Heat, Keystone and cloud-init
	@$(PREFLIGHT) heat
	HSB_AGENT=$(abspath $(STATIC)) cargo test --locked --test heat

vm: static ## one whole boot in an emulated computer, with its console kept in target/vm-console.log (some 10 minutes)
	@$(PREFLIGHT) vm
	HSB_AGENT=$(abspath $(STATIC)) HSB_CONSOLE=$(abspath $(BUILT))/vm-console.log cargo test --locked --test heat -- --ignored vm::

format: ## that the source is formatted
	cargo fmt --all --check

lint: ## that clippy finds nothing
	cargo clippy --workspace --all-targets --locked -- --deny warnings

# Without shellcheck nothing is checked here; preflight says so, and in CI refuses.
scripts: ## that shellcheck finds nothing
	! command -v shellcheck >/dev/null || shellcheck --external-sources .ci/run cloud-init/fetch.sh $$(find tests -name '*.sh')

bench-install: static ## the time of `install` beside the package manager's own, by hand
	@$(PREFLIGHT) install
	@tests/install/bench.sh $(STATIC)

bench: ## the agent's time beside a careful script's and Salt's own (ROUNDS=5, LINE=3008)
	@$(PREFLIGHT) bench
	@$(MAKE) --no-print-directory static venv-$(or $(LINE),3008)
	@$(LAB) bench $(STATIC) --rounds $(ROUNDS) --line $(or $(LINE),3008)

venvs: venv-3006 venv-3008 venv-heat ## the real Salts and the real Heat that tests and demo run, below CACHE

venv-3006 venv-3008 venv-heat: venv-%:
	@tests/lab/venv.sh $* >/dev/null

clean: ## removes what was built, but not the Salts below CACHE
	cargo clean
