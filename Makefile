# Everything a user or developer runs. `make` alone prints the list.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTEST_ARGS ?=

.PHONY: help setup build check format test torture demo bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing, create .venv, build: .venv/bin/lvolfs
	@scripts/setup

build: setup ## rebuild native code that changed

check: ## format, lint and types
	@scripts/setup --test
	@scripts/check

format: ## put Python and C sources into their format
	@scripts/setup --test
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

test: ## all tests, real mounts included, as root (PYTEST_ARGS=... to choose)
	@scripts/setup --test
	@temporary=$$(mktemp -d -t lvolfs-test-XXXXXX); \
	trap 'rm -rf --one-file-system "$$temporary"' EXIT; \
	PYTEST_DEBUG_TEMPROOT=$$temporary .venv/bin/python -m pytest $(PYTEST_ARGS)

torture: ## hours of power cuts, kills, fuzzing, races and load, as root
	@scripts/setup --torture
	@scripts/torture

demo: ## full and delta rebuild of a replica, on real files, measured
	@scripts/setup --demo
	.venv/bin/python demo/demo.py

bench: ## measure beside qcow2, nbdkit, XFS, btrfs, rsync...: half an hour, as root (QUICK=1: 3 min)
	@scripts/setup --bench
	.venv/bin/python -m bench $(if $(QUICK),--quick) --json bench.json --plots bench-plots $(BENCH_ARGS)

clean: ## remove .venv and everything built
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f _native/*.so
	for source in _native/*.pyx; do rm -f "$${source%.pyx}.c"; done
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
