# The words of people and of CI are the same: install, demo, tools, check, test, bench.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install demo tools screenshots check test test-slow test-iipsrv test-compose chaos
.PHONY: bench bench-worker bench-odd bench-intake bench-scale bench-search bench-explorer bench-search-million
.PHONY: lock audit-deps sbom clean

install: .venv/.installed

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "lookalike needs Python 3.11 or newer: set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv || \
	  { rm -rf .venv; echo "This Python cannot make virtual environments: on Debian run 'apt install python3-venv'"; exit 1; }

.venv/.installed: pyproject.toml .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[worker,local,catalogue,inventory,explorer]'
	@touch $@

.venv/.installed-dev: pyproject.toml .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[worker,local,catalogue,inventory,explorer,dev]'
	@touch $@

demo: .venv/.installed
	$(BIN)/lookalike demo $(ARGS)

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint infra/docker/*.Dockerfile infra/aws/Dockerfile
	$(BIN)/cfn-lint

# Two tools of Debian's that tests run, where this machine lets us install them: as root, with apt. Elsewhere their tests are
# skipped, unless LOOKALIKE_CHROMIUM names a Chromium and a promtool is on the path. Of Prometheus only that program is taken:
# its package would start a server.
tools: .venv/bin/python
	@chromium=$${LOOKALIKE_CHROMIUM:-$$(command -v chromium)}; promtool=$$(PATH="$(CURDIR)/$(BIN):$$PATH" command -v promtool); \
	if [ -n "$$chromium" ] && [ -n "$$promtool" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null || [ "$$(id -u)" != 0 ]; then \
	  echo "no root or no apt to install Chromium and promtool with: tests that need them will be skipped"; exit 0; fi; \
	apt-get update --quiet=2; \
	[ -n "$$chromium" ] || apt-get install --yes --quiet=2 --no-install-recommends chromium >/dev/null \
	  || echo "Chromium cannot be installed: tests in a browser will be skipped"; \
	[ -n "$$promtool" ] || ( cd .venv && apt-get download --quiet=2 --option APT::Sandbox::User=root prometheus && dpkg-deb --extract prometheus_*.deb prometheus \
	  && mv prometheus/usr/bin/promtool bin/ && rm -r prometheus prometheus_*.deb ) \
	  || echo "promtool cannot be had: tests of the alerts' expressions will be skipped"

# Pictures of every page of the explorer, into docs/screenshots.
screenshots: .venv/.installed-dev
	$(BIN)/python -m tests.browser.screenshots

test: .venv/.installed-dev
	$(BIN)/python -m pytest -m 'not slow' --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: .venv/.installed-dev
	$(BIN)/python -m pytest -m slow $(ARGS)

# A IIIF image server of Debian's, which this installs: for that, run it as root.
test-iipsrv: .venv/.installed-dev
	apt-get install --yes --no-install-recommends iipimage-server lighttpd libvips-tools
	LOOKALIKE_TEST_IIPSRV=1 $(BIN)/python -m pytest tests/acceptance/test_iiif_servers.py $(ARGS)

# docker-compose.yml on your Docker engine: builds the images, brings all up beside what runs there, searches, takes it down.
test-compose: .venv/.installed-dev
	LOOKALIKE_TEST_COMPOSE=1 $(BIN)/python -m pytest tests/acceptance/test_compose_up.py $(ARGS)

bench: .venv/.installed-dev
	$(BIN)/python -m bench $(ARGS)

# IMG2DATASET=/path/to/python of an environment with img2dataset 1.47 measures that beside the data path.
bench-worker: .venv/.installed-dev
	IMG2DATASET="$(IMG2DATASET)" $(BIN)/python -m bench fidelity worker datapath devices memory workers

# Downloads the source distributions of Pillow and pypng, which carry the odd pictures.
bench-odd: .venv/.installed-dev
	$(BIN)/python -m bench odd

# Takes some ten minutes: archives of up to five million images.
bench-intake: .venv/.installed-dev
	$(BIN)/python -m bench register register-memory ledger-scale events

# Takes a quarter of an hour: several workers whose devices sleep, and twenty that have no pictures.
bench-scale: .venv/.installed-dev
	$(BIN)/python -m bench scaling fleet

# Takes long: loads two archives of 200,000 vectors. BENCH_HOME=/a/folder keeps them, so that `python -m bench NAME` goes on
# from them.
bench-search: .venv/.installed-dev
	$(BIN)/python -m bench search-data search search-peers search-filters search-build search-mixed search-partitions search-real search-quality duplicates

# The first loads 200,000 vectors, unless bench-search has in the same BENCH_HOME.
bench-explorer: .venv/.installed-dev
	$(BIN)/python -m bench explorer explorer-uploads explorer-paint explorer-map explorer-pages

# Takes longer: loads a million vectors.
bench-search-million: .venv/.installed-dev
	$(BIN)/python -m bench search-million

# Twenty runs of two or three minutes each; `make chaos SEEDS=7` repeats one, ARGS=--encoder=efficientnet-lite0 takes a network.
SEEDS ?= 20
chaos: .venv/.installed-dev
	$(BIN)/python -m bench.chaos --seeds $(if $(filter 20,$(SEEDS)),0-19,$(SEEDS)) $(ARGS)

.venv/tools/.installed: requirements/tools.in .venv/bin/python
	@$(BIN)/python -m venv .venv/tools
	$(TOOLS)/python -m pip install --quiet --requirement requirements/tools.in
	@touch $@

# Exact versions with the hashes of all their files, for Linux on any processor and every Python from 3.11 on.
# ARGS=--upgrade takes the newest. worker-cpu.lock lacks torch and what comes with it: its builds without CUDA are on an
# index of its own, with hashes of their own.
TOOLS := .venv/tools/bin
COMPILE = $(TOOLS)/uv pip compile --no-config --quiet --universal --python-version 3.11 --generate-hashes \
  --custom-compile-command 'make lock' $(ARGS) pyproject.toml
CUDA = sed -En 's/^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==.*/--no-emit-package \1/p'
ORCHESTRATOR = --extra catalogue --extra inventory --extra tracing
# One image for workers and explorer: to search with a picture takes all that a worker takes.
WORKER = --extra worker --extra explorer --extra tracing
lock: .venv/tools/.installed
	$(COMPILE) requirements/image.in $(ORCHESTRATOR) --output-file requirements/orchestrator.lock
	$(COMPILE) requirements/image.in requirements/worker.in $(WORKER) --output-file requirements/worker.lock
	cp requirements/worker.lock requirements/worker-cpu.lock
	$(COMPILE) requirements/image.in requirements/worker.in $(WORKER) \
	  $$($(CUDA) requirements/worker.lock) --output-file requirements/worker-cpu.lock
	$(COMPILE) --extra local --extra catalogue --extra inventory $(WORKER) --output-file requirements/all.lock

# Fails as well where the vulnerability service does not know a package: then nothing has been audited.
audit-deps: .venv/tools/.installed
	@for lock in all worker orchestrator; do echo "$$lock.lock"; \
	  $(TOOLS)/pip-audit --strict --progress-spinner off --require-hashes --disable-pip \
	  --requirement requirements/$$lock.lock || exit 1; done

# What is in the images, as CycloneDX.
sbom: .venv/tools/.installed
	@mkdir -p dist
	@for lock in worker orchestrator; do \
	  $(TOOLS)/cyclonedx-py requirements --output-reproducible --output-file dist/$$lock.cdx.json \
	  requirements/$$lock.lock && echo "dist/$$lock.cdx.json" || exit 1; done

clean:
	-$(BIN)/lookalike services down
	rm -rf .venv .lookalike
