# The words of people and of CI are the same: install, demo, check, test, bench.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install demo check test test-slow test-iipsrv bench bench-worker bench-odd bench-intake bench-search bench-search-million clean

install: .venv/.installed

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "lookalike needs Python 3.11 or newer: set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv || \
	  { rm -rf .venv; echo "This Python cannot make virtual environments: on Debian run 'apt install python3-venv'"; exit 1; }

.venv/.installed: pyproject.toml .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[worker,local,catalogue,inventory]'
	@touch $@

.venv/.installed-dev: pyproject.toml .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[worker,local,catalogue,inventory,dev]'
	@touch $@

demo: .venv/.installed
	$(BIN)/lookalike demo $(ARGS)

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: .venv/.installed-dev
	$(BIN)/python -m pytest -m 'not slow' --numprocesses 2 --dist loadfile $(ARGS)

test-slow: .venv/.installed-dev
	$(BIN)/python -m pytest -m slow $(ARGS)

# A IIIF image server of Debian's, which this installs: for that, run it as root.
test-iipsrv: .venv/.installed-dev
	apt-get install --yes --no-install-recommends iipimage-server lighttpd libvips-tools
	LOOKALIKE_TEST_IIPSRV=1 $(BIN)/python -m pytest tests/acceptance/test_iiif_servers.py $(ARGS)

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

# Takes long: loads two archives of 200,000 vectors. BENCH_HOME=/a/folder keeps them, so that `python -m bench NAME` goes on
# from them.
bench-search: .venv/.installed-dev
	$(BIN)/python -m bench search-data search search-peers search-filters search-build search-mixed search-real search-quality duplicates

# Takes longer: loads a million vectors.
bench-search-million: .venv/.installed-dev
	$(BIN)/python -m bench search-million

clean:
	-$(BIN)/lookalike services down
	rm -rf .venv .lookalike
