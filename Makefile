# `make demo` and `make test` require python3 (3.11 or newer) with pip, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(PYTHON) -m pip --python $(BIN)/python install --quiet

.PHONY: demo test docs soak coverage lint bench bench-report clean

demo: $(VENV)/.plot
	@echo 'Products with F and F* on 4 ranks, beside the exact answer:'
	@$(BIN)/fftmatvec -n 4 -pr 2 -pc 2 -g -Nm 200 -Nd 20 -Nt 100 -t --backend cpu
	@mkdir -p build/demo
	@cd build/demo && MPLBACKEND=agg $(CURDIR)/$(BIN)/python $(CURDIR)/docs/gallery/heat_source.py
	@echo 'A heat source, inferred from 5 noisy thermometers (left), its deviation (middle), and forecasts (right): the band'
	@echo 'narrows as data arrive. The picture: $(CURDIR)/build/demo/heat_source.png'

test: $(VENV)/.installed
	$(BIN)/python -m pytest

docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
	$(PYTHON) .ci/check_site.py site

soak: $(VENV)/.installed
	$(BIN)/python -m tests.faults.soak

coverage: $(VENV)/.coverage
	$(BIN)/coverage erase
	FFTMATVEC_SIMULATE_ALL=1 $(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/fftmatvec -g -Nm 500 -Nd 50 -Nt 200 -t

bench-report: $(VENV)/.installed
	$(BIN)/python bench/report.py

clean:
	rm -rf .venv .venv-* build site dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

# The environment has no pip, since Debian's python3 lacks ensurepip. The outer pip installs into it.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv --without-pip $(VENV)
	$(INSTALL) --editable '.[mpich,test]'
	touch $@

$(VENV)/.plot: $(VENV)/.installed
	$(INSTALL) --editable '.[plot]'
	touch $@

.venv-docs/.installed: pyproject.toml
	$(PYTHON) -m venv --without-pip .venv-docs
	$(PYTHON) -m pip --python .venv-docs/bin/python install --quiet --editable '.[docs]'
	touch $@

$(VENV)/.coverage: $(VENV)/.installed
	$(INSTALL) --editable '.[coverage]'
	touch $@

$(VENV)/.lint: $(VENV)/.installed
	$(INSTALL) --editable '.[lint]'
	touch $@
