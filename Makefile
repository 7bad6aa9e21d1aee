# `make` sets everything up and runs the demo; `make test` sets everything up and runs the tests.
# Both install exactly the packages of requirements/main.lock, and again only when that file changes.

PYTHON ?= python3
BIN := .venv/bin
PEER := .venv-peer/bin
REPORT := results/demo/report.html
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-input
export PYTHONNOUSERSITE := 1

.PHONY: demo test check peer test-peer lock clean

demo: .venv/stamp
	@$(BIN)/snakemake
	@echo
	@echo "The report of the demo is ready: $(CURDIR)/$(REPORT)"

test: .venv/stamp
	$(BIN)/python -m pytest -n 2 --dist loadgroup

check: .venv/stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

peer: .venv-peer/stamp

test-peer: .venv-peer/stamp
	$(PEER)/python -m pytest -n 2 --dist loadgroup -m peer

.venv/stamp: requirements/main.lock
.venv-peer/stamp: requirements/peer.lock

# The stamp is newer than the lock file: nothing to do. Otherwise the environment is made anew, never patched.
.venv/stamp .venv-peer/stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dl3flow needs Python 3.11 or newer, found " + sys.version.split()[0] + ": say `make PYTHON=python3.12`")'
	@echo "Making the environment $(@D) from $(firstword $^) ..."
	@rm -rf $(@D)
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) --require-hashes -r $(firstword $^)
	@$(@D)/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

# Writes the lock files anew with the newest versions that pyproject.toml allows; for developers.
COMPILE := -m piptools compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-annotate --all-build-deps --upgrade
lock:
	$(PYTHON) $(COMPILE) --extra test -o requirements/main.lock pyproject.toml
	$(PYTHON) $(COMPILE) --extra test --extra peer -o requirements/peer.lock pyproject.toml

clean:
	rm -rf .venv .venv-peer results .snakemake
