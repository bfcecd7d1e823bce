# llavachat's commands. Each does all of its own set-up, once; `make` alone lists them.
#
# PYTHON   the interpreter to build the environment from (3.11 or newer)

PYTHON ?= $(firstword $(foreach python,python3.14 python3.13 python3.12 python3.11 python3,$(shell \
	$(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(python))))
BIN := .venv/bin
# One that was left half made, or whose interpreter is too old, is made again.
define make-environment
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; $(PYTHON) is none" >&2; exit 1; }
	@$(1)/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		$(PYTHON) -m venv --clear $(1)
endef
# Without bytecode: pip would compile all of torch and transformers on one core, and most of it is
# never imported. What is imported is compiled then, once.
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install --no-compile -c constraints.txt
CDK_PYTEST := JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION=20 .venv-cdk/bin/python -m pytest \
	-o pythonpath="cdk tests/infra"
SAY := @printf '\n== %s\n'

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz test-attacks test-browser test-kills test-observability test-system test-infra test-deploy test-smoke bench check audit protos check-protos accept-protos train evaluate lock clean architecture

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

# --- what a newcomer types -------------------------------------------------------------------

demo: .venv/.server ## start the server, ask about a picture, ask again, stop
	@$(BIN)/llavachat demo

test: .venv/.test ## run the tests that need nothing but Python
	$(SAY) "Tests, a process on each core (5 to 6 minutes on 2 cores)"
	@$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal --durations 10

# --- what a developer types ------------------------------------------------------------------

check: .venv/.check check-protos ## lint, types, import rules, the contract, the documents' commands, secrets
	$(SAY) "ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	$(SAY) "mypy --strict"
	@$(BIN)/mypy
	@$(BIN)/mypy scripts/*.py scripts/smoke-aws
	$(SAY) "import rules"
	@$(BIN)/lint-imports
	$(SAY) "the documents' commands and links"
	@$(BIN)/python scripts/check_documents.py $$(git ls-files '*.md')
	$(SAY) "secrets"
	@BIN=$(BIN) scripts/scan-secrets
	@$(MAKE) --no-print-directory audit

audit: .venv/.check ## compare the pinned dependencies with known vulnerabilities
	$(SAY) "known vulnerabilities of dependencies"
	@PYTHON=$(BIN)/python scripts/audit-dependencies

# Each target for SECONDS; findings land in build/fuzz.
SECONDS ?= 60
fuzz: .venv/.fuzz ## throw bytes at the wire, the prompt builder and the picture intake (SECONDS=60)
	$(SAY) "Fuzzing, $(SECONDS) s each"
	@for target in wire prompt picture; do \
		PYTHONPATH=tests $(BIN)/python -m fuzz $$target --seconds $(SECONDS) || exit 1; done

test-attacks: .venv/.test ## attack a server over raw HTTP/2 while a neighbour works
	$(SAY) "Attacks (about two minutes)"
	@$(BIN)/python -m pytest tests/attacks

test-browser: .venv/.browser ## look at exported chats; needs chromium and chromium-driver
	$(SAY) "Browser (a minute)"
	@command -v chromedriver >/dev/null || { echo "apt-get install chromium chromium-driver" >&2; exit 1; }
	@$(BIN)/python -m pytest tests/browser

test-kills: .venv/.test ## kill and stop servers, fill a disk, move the clock; KILLS=1000 for more
	$(SAY) "Kills, stops, a full disk, a clock that jumps (3 to 6 minutes on 2 cores)"
	@$(BIN)/python -m pytest -s tests/system/test_kills.py tests/system/test_server_kills.py \
		tests/system/test_full_disk.py tests/system/test_clock.py tests/system/test_drains.py \
		tests/system/test_deadlines.py

# pythonpath: the script that writes the dashboard.
test-observability: .venv/.observability ## a real Prometheus scrapes a server; needs prometheus
	$(SAY) "Observability (about a minute)"
	@command -v promtool >/dev/null || { echo "apt-get install prometheus" >&2; exit 1; }
	@$(BIN)/python -m pytest -o pythonpath=scripts tests/observability

test-system: .venv/.test .venv-cdk/.ready ## the host's tests on a real systemd in a container; needs root
	$(SAY) "What the system tests stand on (some minutes, only once)"
	@PYTHON=$(CURDIR)/$(BIN)/python tests/system/prepare
	$(SAY) "The host, from nothing to a reboot (5 to 15 minutes on 2 cores)"
	@$(BIN)/python -m pytest --durations=0 --durations-min=5 tests/system/test_[0-9]*.py

test-infra: .venv-cdk/.ready ## the stack's templates, policies and rules; needs Node.js
	$(SAY) "Stack tests"
	@$(CDK_PYTEST) --confcutdir=tests/infra tests/infra --ignore tests/infra/deploy

test-deploy: .venv/.test .venv-cdk/.ready ## cdk deploy against an emulated account; needs root
	$(SAY) "What the deployment's tests stand on (some minutes, only once)"
	@PYTHON=$(CURDIR)/$(BIN)/python tests/infra/deploy/prepare
	$(SAY) "The life of a deployment, llavachat's commands, machines that boot: side by side"
	@tests/infra/deploy/run

test-smoke: .venv/.test .venv-cdk/.ready ## scripts/smoke-aws and spot against an emulated account; needs root
	@PYTHON=$(CURDIR)/$(BIN)/python tests/infra/deploy/prepare
	$(SAY) "scripts/smoke-aws and spare capacity, a real server in the machine's place (some minutes)"
	@for story in smoke spot; do $(CDK_PYTEST) --confcutdir=tests/infra/deploy --show-capture=no \
		tests/infra/deploy/test_$$story.py || exit 1; done

# BENCH: flags for a shorter run, as in BENCH="--quick --contenders ours,tutorial"; --help lists them.
BENCH ?=
bench: .venv/.bench ## measure this server beside others' on this machine (BENCH="--quick" to try)
	$(SAY) "Side by side: set-up once (20 to 40 minutes, 15 GB), then three rounds"
	@$(BIN)/python -m bench.served run $(BENCH)

architecture: .venv-cdk/.ready ## draw docs/architecture.svg from the synthesised template
	@CDK_OUTDIR=build/architecture JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION=20 \
		.venv-cdk/bin/python cdk/app.py
	@.venv-cdk/bin/python scripts/draw_architecture.py \
		build/architecture/llavachat.template.json docs/architecture.svg

protos: .venv-protos/.ready ## generate the stubs from the contract
	@scripts/generate-protos client

check-protos: .venv-protos/.ready ## lint the contract, compare it with main, compare the stubs
	$(SAY) "the contract: lint, compatibility, committed stubs"
	@scripts/check-protos

accept-protos: .venv-protos/.ready ## take the contract as it is for what clients in the field know
	@.venv-protos/bin/buf build -o protos/baseline.binpb

train: .venv/.server ## train the embedded model again from nothing (51 minutes on 2 cores with bfloat16)
	@$(BIN)/python -m training.train

evaluate: .venv/.server ## print the first tables of docs/model.md; options for the others are named there
	@$(BIN)/python -m training.evaluate

lock: ## write constraints.txt anew from what pyproject.toml asks for
	@PYTHON=$(PYTHON) scripts/lock

clean: ## remove the environments
	rm -rf .venv .venv-cdk .venv-protos

# --- set-up, once ----------------------------------------------------------------------------

.venv/.torch: pyproject.toml constraints.txt
	$(SAY) "Set-up: Python environment with torch and transformers (minutes, only once: 1 to 3 with torch's build for CPUs)"
	$(call make-environment,.venv)
	@$(PIP) --upgrade pip
# torch first and by itself, so that no other package can draw in another release of it. Which build of it
# is the index's to say: PyPI's for Linux brings CUDA's libraries; see constraints.txt.
	@$(PIP) torch
	@touch $@

.venv/.server: .venv/.torch
	@$(PIP) -e '.[server]'
	@touch $@

# The server's libraries are in the same resolution: two would take longer.
.venv/.test: .venv/.torch
	$(SAY) "Set-up: the server's libraries and the tests'"
	@$(PIP) -e '.[server,otel,deploy,compiled]' --group test
	@touch .venv/.server $@

.venv/.bench: .venv/.server
	$(SAY) "Set-up: what compiles kernels for a CPU"
	@$(PIP) -e '.[server,compiled]'
# The others' environments come with bytecode, and where PYTHONDONTWRITEBYTECODE is set this one would
# never have any: its starts would be compared with theirs.
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c 'import llavachat_server.app, \
		llavachat_server.engine.opening, llavachat_server.engine.native.backend, \
		llavachat_server.images.decoder'
	@touch $@

.venv/.check: .venv/.test
	$(SAY) "Set-up: linters"
	@$(PIP) --group check
	@touch $@

.venv/.observability: .venv/.test
	$(SAY) "Set-up: Grafana's library of dashboards"
	@$(PIP) --group observability
	@touch $@

.venv/.browser: .venv/.test
	$(SAY) "Set-up: what drives a browser"
	@$(PIP) --group browser
	@touch $@

.venv/.fuzz: .venv/.test
	$(SAY) "Set-up: the fuzzer"
	@$(PIP) --group fuzz
	@touch $@

.venv-cdk/.ready: cdk/constraints.txt
	$(SAY) "Set-up: CDK and what its tests need"
	$(call make-environment,.venv-cdk)
	@.venv-cdk/bin/python -m pip --quiet --disable-pip-version-check install \
		-c constraints.txt --upgrade pip
	@.venv-cdk/bin/python -m pip --quiet --disable-pip-version-check install \
		-c cdk/constraints.txt --group cdk --group infra
	@touch $@

# An environment of its own: stubs are generated by the oldest grpcio-tools that is supported,
# since generated code refuses to load under anything older than its generator.
.venv-protos/.ready: scripts/protos-requirements.txt
	$(SAY) "Set-up: protobuf compiler and linter"
	$(call make-environment,.venv-protos)
	@.venv-protos/bin/python -m pip --quiet --disable-pip-version-check install \
		-r scripts/protos-requirements.txt
	@touch $@
