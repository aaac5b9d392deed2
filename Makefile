# What people and CI run. Everything lives in .venv, made on first use by the newest Python found, the system's own first.
#
#   make demo            the examples at http://127.0.0.1:8000 (HTTP=127.0.0.1:8123: elsewhere)
#   make test            the tests (ARGS="tests/protocol -x": these)
#   make test-apps       real applications, set up as the pages of docs/how-to say (ARGS="-k trac": these)
#   make check           ruff, mypy, and the house's own rules
#   make coverage        the tests, subprocesses counted; fails under 90 % of the lines
#   make test-pythons    the tests on every Python from 3.11 on that is found here
#   make soak            a server under load that is reloaded, stopped and killed, with figures (ARGS="--only killing")
#   make bench           CPU per request beside other servers, with a report (ARGS="--only hello-unix --limit 1.0")
#   make bench-guard     has a request become dearer than it was? (ARGS=--record: this is how dear it may be)
#   make deb             packages for Debian 12, into dist/ (DIST=folder: elsewhere)
#   make format          ruff's formatting and safe repairs
#
# PYTHON=/path/to/python3.12 names another Python, VENV=folder another environment.

HTTP ?= 127.0.0.1:8000
VENV ?= .venv
PYTHON ?=
ARGS ?=
DIST ?= dist
BIN := $(VENV)/bin

.PHONY: help demo test test-apps check coverage soak bench bench-page bench-guard test-pythons test-packages deb format clean FORCE

help:
	@sed -n '/^#/!q; s/^#\( \|$$\)//p' Makefile

demo: $(VENV)/.ready-http
	@echo "Look at http://$(HTTP)/   (Ctrl-C ends it)"
	@exec $(BIN)/scgi serve $$($(BIN)/python scripts/demo-user) --listen 127.0.0.1:0 --http $(HTTP) examples/demo.py

test: $(VENV)/.ready-http,reload,test $(VENV)/.test-packages
ifdef COVERAGE
	rm -f .coverage .coverage.*
	scripts/run-tests "$(BIN)/coverage run" $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
else
	scripts/run-tests $(BIN)/python $(ARGS)
endif

# Each application has an environment of its own, .venv-apps/NAME, made when its first test needs it.
test-apps: $(VENV)/.ready-http,reload,test $(VENV)/.test-packages
	@scripts/system-packages apps
	$(BIN)/python -m pytest --numprocesses=4 --dist=worksteal tests/recipes $(ARGS)

coverage:
	@$(MAKE) test COVERAGE=yes

check: $(VENV)/.ready-http,reload,test,check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/house/test_floors.py tests/house/test_files.py

soak: $(VENV)/.ready-http,reload,test
	cd tests && $(abspath $(BIN))/python -m soak $(ARGS)

bench: $(VENV)/.ready-http $(VENV)-bench/.ready
	@scripts/system-packages bench $(BIN)/python
	@$(BIN)/python -m bench $(ARGS)

# The page of the docs from the results that are there.
bench-page:
	@$(BIN)/python -m bench.render

bench-guard: $(VENV)/.ready-http
	@$(BIN)/python -m bench.guard $(ARGS)

deb:
	@scripts/make-deb $(DIST)

format: $(VENV)/.ready-http,reload,test,check
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test-pythons:
	@failed=; \
	for python in $$(scripts/find-python --all); do \
	    minor=$${python##*python}; \
	    echo "== Python $$minor: $$python"; \
	    $(MAKE) test VENV=.venv-$$minor PYTHON=$$python || failed="$$failed $$minor"; \
	done; \
	if [ -n "$$failed" ]; then echo "Failed on:$$failed"; exit 1; fi

# Tries again what `make test` tries once.
test-packages:
	@scripts/system-packages tests $(BIN)/python

clean:
	rm -rf .venv .venv-bench .venv-apps .venv-3.* .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build

$(VENV)/.ready-%: pyproject.toml $(if $(PYTHON),FORCE)
	@scripts/make-venv $(VENV) "$(PYTHON)" $*
	@touch $@

# The peers have an environment of their own, with the same Python: the reference is called scgi too.
$(VENV)-bench/.ready: bench/peers.txt | $(VENV)/.ready-http
	@scripts/bench-peers $(@D) $(BIN)/python bench/peers.txt
	@touch $@

$(VENV)/.test-packages: | $(VENV)/.ready-http,reload,test
	@scripts/system-packages tests $(BIN)/python
	@touch $@
