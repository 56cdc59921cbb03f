# Everything, on a machine that has only python3 (3.11 or newer) and make:
#
#   make demo        the tour on real data; writes forecast.png
#   make test        lint, types and tests
#   make test-all    the same, and the tests on the oldest and the newest JAX
#   make notebooks   run the notebooks; make store-notebooks keeps their outputs
#   make docs        build the site into docs/_build/html, and check it
#   make figures     draw the figures of the README and the site anew
#   make bench       run every benchmark in its quick form
#   make wheel       build the wheel and run the tour from it, outside the checkout
#   make format      let ruff rewrite the sources
#   make clean       remove the environments and whatever was built

PYTHON ?= python3
WORKERS ?= 2
export WORKERS

run := .venv/bin/python

.PHONY: demo test test-all test-oldest test-newest lint notebooks store-notebooks docs figures bench wheel format clean

demo: .venv/.demo
	$(run) -m jscan

test: lint
	$(run) -m pytest -n $(WORKERS)

lint: .venv/.test
	$(run) -m ruff check
	$(run) -m ruff format --check
	$(run) -m pyright --pythonpath $(run)

test-all: test test-oldest test-newest

test-oldest: .venv/.test
	scripts/test-on-jax oldest 0.10.2 3.11 3.12 3.13

test-newest: .venv/.test
	scripts/test-on-jax newest '0.12.*' 3.12 3.13

notebooks: .venv/.test
	$(run) -m pytest -n $(WORKERS) --nbmake notebooks

store-notebooks: .venv/.test
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
	rm -rf .venv .venv-oldest .venv-newest dist build forecast.png docs/_build docs/notebooks

# A stamp file says what has been installed; it is out of date when pyproject.toml changes.
.venv/.demo: pyproject.toml scripts/make-environment
	scripts/make-environment $(PYTHON) .venv plot,progress
	@touch $@

.venv/.test: pyproject.toml scripts/make-environment
	scripts/make-environment $(PYTHON) .venv test,oracles,lint,notebooks
	@touch .venv/.demo $@

.venv/.docs: pyproject.toml scripts/make-environment
	scripts/make-environment $(PYTHON) .venv docs
	@touch $@
