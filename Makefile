# The commands of everyday work. Meson does the building; tools/ holds what is longer than a line.
#
#   YES=1   do not ask before installing     DIR=...  data folder of 'make run'
#   LISTEN  address of 'make run'            FUZZ_SECONDS  per target of 'make fuzz'
#   LONG=1  'make test' with its long tier: virtual machines by the dozen

YES ?=
LONG ?=
DIR ?= demo-data
LISTEN ?= 127.0.0.1:8080
FUZZ_SECONDS ?= 60
export YES FUZZ_SECONDS

.PHONY: build run test bench fuzz soak check format clean uninstall-deps help
.NOTPARALLEL:

build: ## build/bulkhead and build/bulkhead-worker, optimised
	@tools/deps install
	@tools/build release

run: build ## start the demo server: two tenants, two models, curl lines to paste
	@tools/run --data '$(DIR)' --listen '$(LISTEN)'

test: ## every tier, with ASan and UBSan; ends with 'N passed, N failed'
	@tools/deps install --test
	@tools/build debug
	@BULKHEAD_LONG='$(LONG)' /usr/bin/python3 tools/test-run

bench: ## the table of figures, also as build/bench.json
	@tools/deps install --bench
	@tools/build release
	@/usr/bin/python3 test/bench/bench.py

fuzz: ## libFuzzer on every target, FUZZ_SECONDS each
	@tools/deps install --dev --test
	@tools/build fuzz
	@tools/fuzz-run

soak: ## what takes long: many simulator seeds, long live runs
	@tools/deps install --test
	@tools/build debug
	@BULKHEAD_CYCLES=1000 BULKHEAD_BUILD=$$PWD/build/debug build/debug/test/unit/isolate/isolate-test_conformance
	@BULKHEAD_SOAK=1 BULKHEAD_SIM_SEEDS=$${BULKHEAD_SIM_SEEDS:-1000000} /usr/bin/python3 tools/test-run sim live

check: ## format, tidy, include law, sizes; builds with clang too
	@tools/deps install --dev --test
	@tools/check

format: ## clang-format on every C file
	@git ls-files -co --exclude-standard '*.c' '*.h' | xargs clang-format -i

clean: ## remove what was built; keeps what was downloaded
	@if [ -d build ]; then find build -mindepth 1 -maxdepth 1 ! -name deps ! -name engines ! -name guest -exec rm -rf {} +; fi

uninstall-deps: ## remove the packages and the apt source that tools/deps brought
	@tools/deps uninstall

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16
