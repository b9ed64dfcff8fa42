# Every target sets up what it needs first (deploy/setup); a second time that takes a second.
MAKEFLAGS += --no-print-directory
HERE := $(dir $(realpath $(firstword $(MAKEFILE_LIST))))
PY := $(HERE).venv/bin/python
SHELL := /bin/bash

TABLE := -p tests.integration.table -m "" --table

.PHONY: help setup wheel run visit test test-site test-sip check bench bench-attacks bench-guardian bench-registrar bench-journal bench-site bench-transfer bench-readers install install-site clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(HERE)Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup:
	@cd $(HERE) && deploy/setup

wheel:  ## build pjsua2, or take it from the cache, and print where it is
	@cd $(HERE) && deploy/setup --wheel-only

run: setup  ## our SIP server, a demo phone and the station with a simulated panel
	@cd $(HERE) && exec $(PY) -m deploy.demo $(if $(ADDRESS),--address $(ADDRESS))

visit: setup  ## one whole visit without a person, with a timeline
	@cd $(HERE) && $(PY) -m deploy.demo.visit

test: visit  ## the visit, then all tests: unit, integration, system
	@cd $(HERE) && $(PY) -m pytest -q -n 3 --dist worksteal

test-site: setup  ## every item of the SIP server, each with a real counterpart, as a table
	@cd $(HERE) && $(PY) -m pytest -q $(TABLE) build/test-site.json tests/integration/site

test-sip: setup  ## every item of SIP at the door station, each with a real counterpart, as a table
	@cd $(HERE) && $(PY) -m pytest -q $(TABLE) build/test-sip.json -n 2 --dist worksteal tests/integration/station

check: setup  ## style, types, layers, and the core's branch coverage by its example tests
	@cd $(HERE) && .venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports
	@cd $(HERE) && export COVERAGE_FILE=build/coverage && mkdir -p build && \
	    $(PY) -m coverage run --branch --source intercom.core -m pytest -q tests/unit/core --ignore tests/unit/core/test_properties.py && \
	    $(PY) -m coverage report --fail-under 100 --skip-covered

bench: setup  ## the figures of the README, measured here
	@cd $(HERE) && $(PY) -m tests.bench

bench-attacks: setup  ## what strangers try, at the station and at a bare pjsua2 script: what each lets in
	@cd $(HERE) && $(PY) -m tests.bench attacks --report build/bench-attacks.json

bench-registrar: setup  ## what registrars, name servers and the network do wrong: when the station is back
	@cd $(HERE) && $(PY) -m tests.bench registrar --report build/bench-registrar.json

bench-site: setup  ## 2,000 phones at our SIP server and at the package's own configuration, side by side
	@cd $(HERE) && $(PY) -m tests.bench site --report build/bench-site.json

bench-guardian: setup  ## how soon and how exactly the doors lock, whatever becomes of the service
	@cd $(HERE) && $(PY) -m tests.bench guardian --report build/bench-guardian.json

bench-transfer: setup  ## a visit that is held, transferred and joined by a third: when the visitor is not heard
	@cd $(HERE) && $(PY) -m tests.bench transfer --report build/bench-transfer.json

bench-readers: setup  ## ten million random bytes into each decoder of card readers and keypads, noise, pulled cables
	@cd $(HERE) && $(PY) -m tests.bench readers --report build/bench-readers.json

bench-journal: setup  ## the record: killed at each of its first 500 writes, on broken disks, and a million entries long
	@cd $(HERE) && $(PY) -m tests.bench journal --report build/bench-journal.json

install:  ## install the service on this machine
	@cd $(HERE) && deploy/install

install-site:  ## install the service and the SIP server of the house on this machine
	@cd $(HERE) && deploy/install --site

clean:  ## remove what was made in this folder
	@cd $(HERE) && rm -rf .venv build .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage
