# What there is to do here. `make help` lists it. GNU make; the recipes are POSIX sh.

# A space in a path ends a word for make, whatever is done about it.
ifneq ($(words $(CURDIR) $(or $(HOME),none)),2)
$(error There is a space in the path of this tree ($(CURDIR)) or in HOME ($(HOME)); move it to a path without one)
endif

# The environments with real Salt are built once (minutes) and kept outside the tree, where no `make clean` finds them.
CACHE ?= $(HOME)/.cache/heat-salt-bootstrap
export HSB_CACHE := $(CACHE)

# What ships: static, by musl, for two machines. TARGET says of which one is spoken.
TARGETS := x86_64-unknown-linux-musl aarch64-unknown-linux-musl
TARGET ?= x86_64-unknown-linux-musl
export TARGET
# Nothing may raise it unnoticed: bytes, and bytes as xz.
# Where there is no rust-src the standard library is the compiler's own, and larger.
# Looked at when it is wanted: by then rust-src may have been fetched.
STD = $(shell packaging/static.sh --std)
MOST_x86_64_small := 2200000 960000
MOST_x86_64_plain := 2500000 1090000
MOST_aarch64_small := 1920000 935000
MOST_aarch64_plain := 2200000 1040000
MOST = $(MOST_$(firstword $(subst -, ,$(TARGET)))_$(STD))

BUILT := $(or $(CARGO_TARGET_DIR),target)
QUICK := $(BUILT)/debug/heat-salt-bootstrap
STATIC := $(BUILT)/$(TARGET)/release/heat-salt-bootstrap
# Where packages are put.
PACKAGES := $(BUILT)/packages
LAB := cargo run --quiet --locked --package lab --

ROUNDS ?= 5
TIMED := tests/timed.sh
# Results in a form that other tools read.
export HSB_JUNIT := $(abspath $(BUILT))/junit
# In CI nothing may be skipped.
PREFLIGHT := tests/preflight.sh $(if $(CI),--ci)

ROOTS := $(addprefix root-,bookworm el cloud bullseye trixie)

.DEFAULT_GOAL := help
.PHONY: herd test-herd together machines test-programs test-aarch64 build-tests test-noisy test-faults test-extension roots $(ROOTS) soak help build build-quick static static-all check-static check-static-all static-twice static-debian demo demo-failing test test-all test-quick test-salt test-services test-heat format lint scripts size bench pages rpm demo-rpm srpm rebuild deb wheel sbom release manual venvs venv-3006 venv-3008 venv-heat venv-tools clean test-install test-packages bench-install vm fuzz test-fuzz advisories

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## / { printf "%-16s  %s\n", $$1, $$2 }' Makefile

# What a goal needs besides, asked before what it is built of: the first prerequisite of such a goal.
ready-%:
	@$(PREFLIGHT) $*

build: ## the agent, linked as is usual on this machine
	@$(PREFLIGHT) build
	cargo build --release --locked

# ring is partly C, and musl-gcc compiles it for musl. So does gcc, since that C uses no library.
static: ## the agent as it ships, static (TARGET=aarch64-unknown-linux-musl)
	@$(PREFLIGHT) build
	@test -d "$$(rustc --print sysroot)/lib/rustlib/$(TARGET)/lib" || ! command -v rustup >/dev/null || rustup target add $(TARGET)
	@$(PREFLIGHT) static
	@packaging/static.sh $(TARGET)
	@ls -l $(STATIC)

static-all: ## the same for each machine that it ships for
	@for target in $(TARGETS); do $(MAKE) --no-print-directory static TARGET="$$target" || exit; done

check-static: static ## that it is static, starts, and is no larger than allowed
	@tests/static.sh $(STATIC) $(MOST)

static-twice: static ## that the same source in another directory gives the same bytes (by hand; some minutes)
	@tests/static-twice.sh $(TARGET) $(STATIC)

check-static-all: ## the same for each machine that it ships for
	@for target in $(TARGETS); do $(MAKE) --no-print-directory check-static TARGET="$$target" || exit; done

static-debian: ## the same without rustup, by the compiler that Debian's security updates bring, in a root of its own (five minutes)
	@$(PREFLIGHT) static-debian
	@tests/static-debian.sh $(CACHE)

demo: ## two bootstraps against a real Salt, start to end: the classic chain, then by a token
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

# The first two of them mostly wait; the others mostly compute.
TOGETHER := test-programs test-faults test-herd test-fuzz test-extension test-aarch64
# Goes on with the other parts after one is red, and so says all that is wrong at once.
PARTS := check-static format lint scripts together test-salt machines test-heat
test: ## everything (root; some 20 minutes, and once five more for Salts, Heat and roots)
	@$(PREFLIGHT) quick fuzz aarch64 salt extension services install packages heat
	@tests/compiled.sh fetch
	@$(TIMED) builds $(MAKE) --no-print-directory --jobs 2 --keep-going static build-tests
	@$(TIMED) caches $(MAKE) --no-print-directory --jobs 2 --keep-going venvs roots
	@$(MAKE) --no-print-directory --keep-going $(PARTS)
	@tests/compiled.sh keep

together:
	@$(MAKE) --no-print-directory --keep-going --jobs 4 --output-sync=target $(TOGETHER)

# Each of them waits for machines that boot about half of the time.
machines:
	@$(MAKE) --no-print-directory --keep-going --jobs 2 --output-sync=target test-install test-packages test-services

test-all: export HSB_ALL := 1
test-all: test ## the same with every case of test-salt on both lines, with Salt 3007, and RPMs built by Fedora's macros, and twice (some eleven minutes more)

test-noisy: ## the same, while one core is busy with something else all the time
	@while kill -0 $$$$ 2>/dev/null; do :; done & eater=$$!; trap 'kill "$$eater"; wait "$$eater"' EXIT; trap 'exit 130' INT TERM; \
		$(MAKE) --no-print-directory test

build-tests: # one set of features, so that nothing is built twice
	cargo test --workspace --locked --no-run

test-quick: format lint scripts test-programs ## what needs no Salt

# Those that need neither a master nor a machine.
QUICK_TESTS := panic tidy docs release plan shown report support terminal transports notify check power guardian clock deny size stand_ins model
test-programs:
	@$(PREFLIGHT) quick
	@$(TIMED) quick tests/again.sh --lib --bins $(QUICK_TESTS:%=--test %)

test-faults: ## a table of faults on the way to Heat and Keystone
	@$(PREFLIGHT) build
	@$(TIMED) heat_faults cargo test --workspace --locked --test heat_faults

test-salt: ## against real Salt of both lines
	@$(PREFLIGHT) salt
	@$(TIMED) laboratory tests/again.sh --test real_salt
	@$(TIMED) salt cargo test --workspace --locked --test salt

soak: ## runs that are killed (KILLS=200), told to stop (TERMS=50) or stopped for 30 s (FREEZES=6) at some moment (SEED=...), and what the next one makes of it
	@$(PREFLIGHT) salt
	@$(MAKE) --no-print-directory venv-3006 venv-3008
	KILLS=$(or $(KILLS),200) TERMS=$(or $(TERMS),50) FREEZES=$(or $(FREEZES),6) FROZEN=30 SEED=$(SEED) cargo test --workspace --locked --test salt -- soak::

fuzz: ## every parser against inputs that nobody thought of, a minute each (FOR=60 TARGETS="job html")
	@$(PREFLIGHT) fuzz
	@fuzz/run.sh $(or $(FOR),60) $(TARGETS)

# All of it gives way to what runs beside it and is timed.
ARM := aarch64-unknown-linux-musl
ARM_STATIC = $(abspath $(BUILT))/$(ARM)/release/heat-salt-bootstrap
EMULATED_TESTS := tidy plan check transports guardian names
test-aarch64: ready-aarch64 pages ## the program for aarch64: built, measured, packed, and run by qemu
	@$(TIMED) aarch64-build nice -n 19 $(MAKE) --no-print-directory check-static TARGET=$(ARM)
	@$(TIMED) aarch64-packages env $(DATED) STATIC=$(ARM_STATIC) PAGES=$(abspath $(BUILT))/pages \
		nice -n 19 tests/packages/other.sh aarch64 arm64
	@$(TIMED) aarch64 nice -n 19 tests/emulated.sh $(ARM_STATIC) $(EMULATED_TESTS)

test-fuzz: ## the inputs that are kept, once each
	@$(PREFLIGHT) fuzz
	@$(TIMED) fuzz fuzz/run.sh 0

test-extension: ## the Salt extension: its sources by ruff and mypy, its own tests in Salt of both lines
	@$(PREFLIGHT) extension
	@$(TIMED) extension tests/extension.sh

# What one of 1,000 shows is looked at in a small one too, so that neither the harness nor the service rots between two of those.
test-herd: ## 50 VMs at once against a real master, played: nobody fails, no job twice, no answer lost, exact uses and audit
	@$(PREFLIGHT) extension
	@$(TIMED) herd tests/herd_small.sh

herd: ## so many VMs at once against a real master, by hand (N=1000 REAL=40 LINE=3008 WAY=classic FAULT=service, master, database, one-of-two)
	@$(PREFLIGHT) extension
	@$(if $(REAL),$(MAKE) --no-print-directory build-quick)
	AGENT=$(abspath $(QUICK)) tests/herd.sh $(or $(LINE),3008) herd.py --count $(or $(N),1000) --real $(or $(REAL),0) --fault $(or $(FAULT),none) --way $(or $(WAY),token) \
		--out $(abspath $(BUILT))/herd

test-services: ## under a real systemd and a real init script
	@$(PREFLIGHT) services
	@$(TIMED) services cargo test --workspace --locked --test services

test-install: ready-install rpm deb ## with real dnf, zypper, apt, rpm and dpkg, on throw-away machines
	@$(TIMED) install env HSB_AGENT=$(abspath $(STATIC)) HSB_PACKAGES=$(abspath $(PACKAGES)) cargo test --workspace --locked --test install

test-packages: ready-packages static pages ## RPM, deb, manual pages, completions: built, signed, checked, installed, upgraded, removed
	@$(TIMED) pages tests/again.sh --test pages
	@$(TIMED) packages env $(DATED) STATIC=$(abspath $(STATIC)) PAGES=$(abspath $(BUILT))/pages tests/packages/run.sh

test-heat: ready-heat deb ## templates, transports and whole boots with a real Heat, Keystone and cloud-init
	@$(TIMED) heat env HSB_AGENT=$(abspath $(STATIC)) HSB_PACKAGES=$(abspath $(PACKAGES)) cargo test --workspace --locked --test heat

vm: ready-vm static ## one whole boot in an emulated computer, with its console kept in target/vm-console.log (some 10 minutes)
	HSB_AGENT=$(abspath $(STATIC)) HSB_CONSOLE=$(abspath $(BUILT))/vm-console.log cargo test --workspace --locked --test heat -- --ignored vm::

format: ## that the source is formatted
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check

lint: ## that clippy finds nothing
	@$(TIMED) clippy cargo clippy --workspace --all-targets --locked -- --deny warnings

# Without shellcheck nothing is checked here; preflight says so, and in CI refuses.
scripts: ## that shellcheck finds nothing in any script, and that Python ones compile
	@tests/scripts.sh

bench-install: ready-install static ## the time of `install` beside the package manager's own, by hand
	@tests/install/bench.sh $(STATIC)

size: ready-size static ## what the static program consists of: sections, and by crate (TARGET=aarch64-unknown-linux-musl)
	@tests/bench/size.sh $(TARGET) $(STATIC)

bench: ## the agent's time beside a careful script's and Salt's own (ROUNDS=5, LINE=3008), also for README.md; or beside another agent's (BESIDE=PROGRAM)
	@$(PREFLIGHT) bench
	@$(MAKE) --no-print-directory static venv-$(or $(LINE),3008)
	@$(if $(BESIDE),,python3 tests/bench/start.py $(STATIC))
	@$(LAB) bench $(STATIC) $(if $(BESIDE),--beside $(BESIDE),--pages docs) --rounds $(ROUNDS) --line $(or $(LINE),3008)

# Dated by the commit, so that the same source gives the same bytes. Cargo does not get to see it: it would compile ring, and all that
# rests on it, anew.
DATED = SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git -c safe.directory='*' log -1 --format=%ct)}
pages: ## manual pages, completions, and the licences of what is linked, into target/pages
	cargo build --quiet --locked --workspace --bin pages
	$(DATED) $(BUILT)/debug/pages $(BUILT)/pages
	@ls -l $(BUILT)/pages

rpm deb: ## the packages of the program that ships (TARGET=aarch64-unknown-linux-musl), and of the extension for masters, into target/packages
rpm deb: %: ready-% static pages
	$(DATED) STATIC=$(STATIC) PAGES=$(BUILT)/pages packaging/build.sh $@ $(PACKAGES)
	@ls -l $(PACKAGES)

# They are kept in the source, since it is a Salt that knows the command line; the extension's own tests hold them to it.
manual: ## the manual page and the completion of heat-bootstrap, in salt-extension/, anew
	@$(PREFLIGHT) salt
	@mkdir -p $(BUILT)
	@overlay=$$(tests/lab/extension.sh 3008) && python=$$(tests/lab/venv.sh 3008)/bin/python && cd salt-extension && \
		for one in page=heat-bootstrap.8 bash=heat-bootstrap.bash; do \
			PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$$overlay $$python manual.py $${one%=*} >$(abspath $(BUILT))/manual && \
			cat $(abspath $(BUILT))/manual >$${one#*=} || exit; \
		done

wheel: ## the Salt extension as wheel and source distribution, into target/packages
	@$(PREFLIGHT) wheel
	$(DATED) packaging/build.sh wheel $(PACKAGES)
	@ls -l $(PACKAGES)

demo-rpm: ready-install rpm ## an image that carries the RPM, booted five times under a real systemd, with a real Salt (some two minutes)
	HSB_AGENT=$(abspath $(STATIC)) HSB_PACKAGES=$(abspath $(PACKAGES)) HSB_SHOW=1 cargo test --workspace --locked --test install boot::unit_of_the_rpm

srpm: ## what an RPM can be built from without a network, into target/packages
	@$(PREFLIGHT) rpm
	$(DATED) packaging/build.sh srpm $(PACKAGES)
	@ls -l $(PACKAGES)

advisories: ## known holes in what is linked; wants cargo-deny and the advisory database, so a network
	@$(PREFLIGHT) advisories
	cargo deny check

rebuild: srpm ## the RPMs as a distribution would build it, from the source package, without a network (by hand; some minutes)
	unshare --net sh -c 'ip link set lo up; exec "$$@"' - rpmbuild --rebuild --nodeps --define '_topdir $(abspath $(BUILT))/rebuild' \
		--define "python $$(tests/lab/venv.sh tools)/bin/python" \
		$(PACKAGES)/heat-salt-bootstrap-$$(cargo pkgid | sed 's/.*[#@]//')-1.src.rpm
	@ls -l $(BUILT)/rebuild/RPMS/*

sbom: ## the bill of materials of what ships, CycloneDX
	@mkdir -p $(BUILT)
	python3 packaging/sbom.py $(TARGETS) >$(BUILT)/heat-salt-bootstrap.cdx.json

release: ## all that is published, into target/release-VERSION/, or why not (VERSION=1.2.3 SIGN_WITH=KEY URL=https://...; DRY=1: of any tree)
	@$(PREFLIGHT) release $(if $(SIGN_WITH),signing)
	@BUILT=$(abspath $(BUILT)) VERSION='$(VERSION)' SIGN_WITH='$(SIGN_WITH)' URL='$(URL)' packaging/release.sh $(if $(DRY),--dry)

venvs: venv-3006 venv-3008 venv-heat venv-tools ## the real Salts and the real Heat that tests and demo run, below CACHE
	@tests/lab/sweep.sh $(CACHE)

venv-3006 venv-3008 venv-heat venv-tools: venv-%:
	@tests/lab/venv.sh $* >/dev/null

roots: $(ROOTS) ## the roots of machines that tests install on, below CACHE

$(ROOTS): root-%:
	@tests/install/roots.sh $* >/dev/null

clean: ## removes what was built, but not the Salts below CACHE
	cargo clean
