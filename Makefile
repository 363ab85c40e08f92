# Every target does its own set-up. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs study results clean

# Python 3.11 or newer; `make demo PYTHON=/path/to/python3.13` chooses one.
PYTHON ?=
BIN := .venv/bin

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r name what; \
		do printf '  make %-9s %s\n' "$$name" "$$what"; done

setup: .venv/ready ## make the virtual environment .venv (the other targets do it when it is needed)
	@echo '.venv is ready'

demo: .venv/ready ## the four experiments of the course: EM, NUTS and Gibbs beside the truth, with a report
	@$(BIN)/gmm-jax demo

test: .venv/ready ## the tests: minutes on two cores, fewer once programs are compiled
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: .venv/ready ## style and security rules
	@$(BIN)/ruff check .

# .ci/run does not build them: the tests run the code of every page but the gallery's, and `make study` builds them, too.
docs: .venv/docs ## the pages with notebook, gallery and reference in docs/_build/html: minutes, a minute once they are there
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --doctree-dir docs/_build/doctrees docs docs/_build/html
	@echo 'open docs/_build/html/index.html'

study: .venv/docs ## the slow tests: simulation studies of many minutes
	@$(BIN)/python -m pytest -m slow

results: .venv/ready ## run every experiment again at full size (long); results/ holds what they found
	@for experiment in $$(grep -l '^    experiment(main)' experiments/*.py); do \
		echo "$$experiment"; \
		fresh="$$(grep -q 'run: Options' "$$experiment" && echo --fresh || true)"; \
		$(BIN)/python "$$experiment" $$fresh || [ $$? -eq 3 ]; \
	done
	@$(BIN)/python experiments/readme.py

clean: ## remove .venv, caches and build products; results stay
	@rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	@rm -rf docs/_build docs/gallery_pages docs/reference docs/results
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# install,EXTRA: the package with this extra, in the versions of constraints.txt.
define install
if command -v uv > /dev/null; then \
		uv pip install --quiet --python $(BIN)/python --constraints constraints.txt --editable '.[$(1)]'; \
	else \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(1)]'; \
	fi
endef

# An environment that was finished is brought up to date; one that was not is made anew.
.venv/ready: pyproject.toml constraints.txt
	@set -o pipefail; python="$(PYTHON)"; \
	suits() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; }; \
	if [ -z "$$python" ]; then \
		for candidate in python3 python3.13 python3.12 python3.11; do \
			if suits "$$candidate"; then python="$$candidate"; break; fi; \
		done; \
	fi; \
	if [ -z "$$python" ] || ! suits "$$python"; then \
		echo "gmm_jax needs Python 3.11 or newer; found $$("$${python:-python3}" --version 2> /dev/null || echo none)." \
			"Install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	if [ ! -e $@ ]; then \
		echo "setting up .venv with $$("$$python" --version) (once, about a minute)"; \
		rm -rf .venv; \
		if command -v uv > /dev/null; then \
			uv venv --quiet --seed --python "$$python" .venv; \
		elif ! "$$python" -m venv .venv; then \
			rm -rf .venv; \
			echo "$$python cannot make virtual environments; on Debian: apt install python3-venv" >&2; \
			exit 1; \
		fi; \
	else \
		echo "bringing .venv up to date"; \
	fi; \
	$(call install,test); \
	touch $@

.venv/docs: .venv/ready
	@echo 'installing what the pages are made with'; $(call install,docs); touch $@
