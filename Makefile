# All of it uses the Python of the active environment, with the group `dev` of pyproject.toml installed.
PYTHON ?= python

.PHONY: build test bench lint docs wheel coefficients clean

build:  # in place; what has not changed is not compiled again
	$(PYTHON) setup.py build_ext --inplace --parallel 2

test:
	$(PYTHON) -m pytest

bench:
	$(PYTHON) -m fastsoft bench

lint:
	ruff check . && cython-lint fastsoft && mypy && basedpyright && codespell

docs:  # the pages, in docs/_build/index.html; their links and code blocks; docstrings. With the group `docs` installed
	$(PYTHON) -m sphinx -W --keep-going -b html docs docs/_build
	$(PYTHON) tools/check_links.py docs/_build
	$(PYTHON) -m pytest --doctest-glob="*.rst" docs/*.rst
	$(PYTHON) -m pytest --noconftest tests/test_docstrings.py

wheel:  # and the sdist that it is built from
	$(PYTHON) -m build && twine check --strict dist/*

coefficients:
	$(PYTHON) tools/derive_coefficients.py --check

clean:
	rm -rf build dist *.egg-info docs/_build docs/generated docs/sg_execution_times.rst
	rm -f fastsoft/*.so fastsoft/*.cpp fastsoft/isa/*.so fastsoft/isa/*.cpp
