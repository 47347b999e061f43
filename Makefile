# make quickstart   train on handwritten digits, in under a minute
# make check        lint, types and the quick tests, for every edit; CONTRIBUTING.md says how long they take
# make test         lint, types and tests
# make check-newest the quick tests on Python 3.12 or later with the newest jax, where such a Python is found
# make durations    measure the tests anew, with nothing compiled; `make check` goes by that
# make test-services   tests of many processes, and of what Debian brings (as root, or by sudo): PostgreSQL, MariaDB,
#                      Chromium, LaTeX
# make test-hosts   runs of several hosts under a real Slurm and MPI, on this machine; needs root and Debian; twelve
#                   minutes, or two with HOSTS='hosts and not long'
# make audit        known vulnerabilities of the pinned packages, into results/audit.md; asks the advisories of PyPI,
#                   and with ADVISORIES=<clone of github.com/pypa/advisory-database> also looks there
# make docs         the documentation's site, into build/docs; warnings are errors, and links are checked
# make release      wheel, source distribution, bill of materials and their SHA-256 into build/release, built twice;
#                   with KEPT=results/release, what is kept of a release goes there, too
# All first make a virtual environment with the pinned packages, which takes some minutes once.

PYTHON ?= python3
VENV ?= .venv
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.ready-docs
RUN := $(VENV)/bin/python -m
HOSTS ?= hosts
KEPT ?=
ADVISORIES ?=

.PHONY: quickstart check check-newest quick test durations test-services test-hosts audit docs release lock clean

quickstart: $(READY)
	$(RUN) jaxcnn.main --config=configs/quickstart.py

check: $(READY)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(MAKE) quick

check-newest:
	@newest=$$(for python in python3.14 python3.13 python3.12 $$HOME/.pyenv/versions/3.1[2-9]*/bin/python; do \
		"$$python" -c 'import sys; print(sys.executable)' 2>/dev/null && break; done); \
	if [ -z "$$newest" ]; then echo 'no Python 3.12 or later was found: nothing to check'; else \
		$(MAKE) quick VENV=.venv-newest PYTHON="$$newest"; fi

quick: $(READY)
	$(RUN) pytest -n 2 --dist loadgroup --no-loadscope-reorder --quick

durations: $(READY)
	JAXCNN_TEST_CACHE=$$(mktemp -d) $(RUN) pytest -n 2 --dist loadgroup --no-loadscope-reorder --junitxml durations.xml
	$(RUN) tests.durations durations.xml

test: $(READY)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) pytest -n 2 --dist loadgroup --no-loadscope-reorder --durations 10

test-services: $(READY)
	@{ ls /usr/lib/postgresql/*/bin/initdb /usr/sbin/mariadbd /usr/lib/*/faketime && command -v chromium && command -v pdflatex; } \
		>/dev/null 2>&1 || { \
		sudo=$$(test "$$(id -u)" = 0 || echo sudo); \
		$$sudo apt-get update --quiet && $$sudo apt-get install --yes --quiet --no-install-recommends \
			faketime postgresql mariadb-server chromium fonts-dejavu-core texlive-latex-base texlive-latex-recommended; }
	$(RUN) pip install --quiet --disable-pip-version-check --upgrade --target build/loggers \
		wandb==0.31.0 mlflow-skinny==3.17.2 sqlalchemy alembic
	$(RUN) pytest -m services tests
	$(RUN) pytest tests/test_loggers.py

test-hosts: $(READY)
	sh tests/hosts/install.sh
	$(RUN) pytest -m '$(HOSTS)' --durations 10 tests/hosts

audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit pyyaml
	PATH="$(abspath $(VENV)-audit/bin):$$PATH" .ci/audit requirements.lock results/audit.md $(ADVISORIES)

release:
	$(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install --quiet --disable-pip-version-check \
		build==1.6.1 setuptools==84.2.1 cyclonedx-bom==7.5.0
	.ci/release $(abspath $(VENV)-release/bin/python) build/release $(KEPT)

docs: $(DOCS_READY)
	$(RUN) sphinx --fail-on-warning --keep-going --fresh-env --quiet -b html docs build/docs
	$(RUN) docs.links build/docs

$(DOCS_READY): $(READY)
	$(RUN) pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'jaxcnn needs Python 3.11 or later; name one: make PYTHON=python3.11 ...'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(RUN) pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# Pin anew what the two commands install.
lock: $(READY)
	$(RUN) pip install --quiet uv
	$(RUN) uv pip compile --universal --python-version 3.11 --extra dev --no-annotate --no-header \
		--quiet --upgrade --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) $(VENV)-audit $(VENV)-release .venv-newest build *.egg-info .mypy_cache .pytest_cache .ruff_cache
