# Everything, on a machine that has only python3 (3.11 or newer) and make:
#
#   make demo        the tour on real data; writes forecast.png
#   make quick       what to run while you type: rooms, names, the contract with JAX
#   make test        lint, types and tests; what is slow, or compares with large
#                    libraries, is left to test-all
#   make test-all    every test; what depends on JAX, on its oldest and its newest
#   make test-nightly  the contract with JAX and every test, on its pre-releases
#   make notebooks   run the notebooks; make store-notebooks keeps their outputs
#   make docs        build the site into docs/_build/html, and check it
#   make figures     draw the figures of the README and the site anew
#   make bench       run every benchmark in its quick form
#   make wheel       build sdist and wheel, and try both outside the checkout
#   make format      let ruff rewrite the sources
#   make clean       remove the environments and whatever was built

PYTHON ?= python3
WORKERS ?= 2
export WORKERS
# Where it is set, every Python compiles the package anew, and pytest all tests.
unexport PYTHONDONTWRITEBYTECODE

run := .venv/bin/python
# A worker has neighbours of one file, which share much, and takes over when it is idle.
pytest := $(run) -m pytest -n $(WORKERS) --dist worksteal

.PHONY: demo quick test test-rest test-all test-nightly test-oldest test-newest \
  other-environments oracles lint notebooks store-notebooks docs figures bench wheel format clean

demo: .venv/.demo
	$(run) -m jscan

quick: .venv/.test
	$(pytest) tests/test_rooms.py tests/test_public.py \
	  tests/jax_contract tests/frontend/test_errors.py tests/optimizer/test_pipeline.py

test: lint
	$(pytest) -m "not slow"

# What others are compared with, for test-rest and notebooks.
oracles: .venv/.oracles

# What `make test` leaves out.
test-rest: .venv/.oracles
	$(pytest) -m "slow or oracles"

lint: .venv/.test
	$(run) -m ruff check
	$(run) -m ruff format --check
	$(run) -m pyright --pythonpath $(run)

test-all: test test-rest test-oldest test-newest

oldest := scripts/test-on-jax oldest 0.10.2 3.11 3.12 3.13
newest := scripts/test-on-jax newest '0.12.*' 3.12 3.13

test-oldest: .venv/.test
	$(oldest)

test-newest: .venv/.test
	$(newest)

# What those two need beside .venv, to be made while others work.
other-environments: .venv/.demo
	INSTALL_ONLY=1 $(oldest)
	INSTALL_ONLY=1 $(newest)

test-nightly:
	scripts/test-on-jax nightly pre 3.13 3.12

notebooks: .venv/.oracles
	$(pytest) --nbmake notebooks

store-notebooks: .venv/.oracles
	$(run) scripts/store-notebooks

docs: .venv/.docs
	$(run) -m sphinx --nitpicky --fail-on-warning --keep-going --quiet docs docs/_build/html
	$(run) docs/check.py docs/_build/html
	@echo "The site is docs/_build/html/index.html"

figures: .venv/.demo
	$(run) scripts/draw-figures

bench: .venv/.test
	scripts/bench-quick

wheel: .venv/.test
	scripts/test-wheel

format: .venv/.test
	$(run) -m ruff check --fix
	$(run) -m ruff format

clean:
	rm -rf .venv .venv-oldest .venv-newest .venv-nightly .jax_cache dist build forecast.png docs/_build docs/notebooks

# A stamp file says what has been installed; it is out of date when pyproject.toml changes.
.venv/.demo: pyproject.toml scripts/make-environment
	scripts/make-environment $(PYTHON) .venv plot,progress
	@touch $@

.venv/.test: pyproject.toml scripts/make-environment
	scripts/make-environment $(PYTHON) .venv test,lint,notebooks
	@touch .venv/.demo $@

.venv/.oracles: pyproject.toml scripts/make-environment
	scripts/make-environment $(PYTHON) .venv test,lint,notebooks,oracles
	@touch .venv/.demo .venv/.test $@

.venv/.docs: pyproject.toml scripts/make-environment
	scripts/make-environment $(PYTHON) .venv docs
	@touch $@
