PYTHON ?= python3
BIN := dev/bin
RIVAL := benchmarks/data/rival
OLD := benchmarks/data/6bc8ad4

.PHONY: help serve test lint format bench bench-setup proofs proofs-long run-proofs schema postman screenshot upgrade

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST)

serve: dev/installed  ## make what is missing, then serve the API on HOST and PORT
	@$(BIN)/python manage.py migrate --verbosity 0
	@exec $(BIN)/python -m config.server

test: dev/installed-for-tests  ## run all tests on SQLite, and on the PostgreSQL server that POSTGRESQL_URL names
	@env -u DATABASE_URL $(BIN)/python manage.py test --parallel auto --noinput
	@[ -z "$$POSTGRESQL_URL" ] || DATABASE_URL=$$POSTGRESQL_URL $(BIN)/python manage.py test --parallel auto --noinput
	@echo "All tests passed on SQLite$${POSTGRESQL_URL:+ and on PostgreSQL}."

lint: dev/installed-for-tests  ## style, import order of the layers, spelling, links, migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	git ls-files -z | xargs -0 $(BIN)/codespell
	$(BIN)/python .ci/links.py
	$(BIN)/python manage.py makemigrations --check --dry-run

format: dev/installed-for-tests  ## format the code, and fix what ruff can fix automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-setup  ## measure what each request costs, next to an older version and three other services; needs wrk
	@$(BIN)/python -m benchmarks.bench

bench-setup: dev/installed-for-bench $(RIVAL)/installed $(OLD)/dev/installed  ## make what bench needs; needs Debian's postgresql
	@$(BIN)/python -m benchmarks.databases

proofs: PROOFS = kills bad_clients nodes standby login_timing deploy
proofs: run-proofs  ## kill, flood and replace what runs; needs the Debian packages that docs/contributing.md names

proofs-long: PROOFS = failover pooler recovery container
proofs-long: run-proofs  ## what takes longer or needs more packages, which docs/contributing.md names

run-proofs: dev/installed-for-bench
	@set -e; for proof in $(PROOFS); do echo "== $$proof"; $(BIN)/python -m benchmarks.proofs.$$proof; done

schema: dev/installed  ## write the API's schema to docs/openapi.yml
	@$(BIN)/python manage.py spectacular --file docs/openapi.yml

postman: dev/installed  ## make the Postman collection in docs/ from the API's description
	@$(BIN)/python manage.py spectacular --format openapi-json | $(BIN)/python docs/postman.py > docs/postman_collection.json

screenshot: dev/installed-for-tests  ## renew the README's picture of the docs page; needs chromium
	@DOCS_PICTURE=docs/docs-page.png $(BIN)/python manage.py test config.api.test_docs --noinput

upgrade:  ## write to constraints.txt the newest versions of everything that the pinned direct dependencies need
	@rm -rf dev/upgrade
	@$(PYTHON) -m venv dev/upgrade
	@grep -hv '^-' requirements.txt requirements-dev.txt benchmarks/requirements.txt benchmarks/rival/requirements.txt \
		> dev/upgrade/requirements.txt
	@dev/upgrade/bin/pip install --quiet --disable-pip-version-check -r dev/upgrade/requirements.txt
	@{ echo "# Written by make upgrade"; dev/upgrade/bin/pip freeze; } > constraints.txt

dev/installed: requirements.txt constraints.txt config/api/static/docs/*
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 …' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo 'The venv module is missing; on Debian and Ubuntu: sudo apt install python3-venv' >&2; exit 1; }
	@echo 'Making the virtual environment dev/ …' >&2
	@$(PYTHON) -m venv dev
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@mkdir -p dev/static
	@# With a SECRET_KEY: without one it would make a secret and keep it, also in a container image.
	@SECRET_KEY=unused $(BIN)/python manage.py collectstatic --clear --no-input --verbosity 0 --ignore redoc --ignore '*.map'
	@touch $@

dev/installed-for-tests: dev/installed requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

dev/installed-for-bench: dev/installed benchmarks/requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

$(RIVAL)/installed: benchmarks/rival/requirements.txt constraints.txt
	@$(PYTHON) -m venv $(RIVAL)
	@$(RIVAL)/bin/pip install --quiet --disable-pip-version-check -r benchmarks/rival/requirements.txt
	@touch $@

$(OLD)/dev/installed:
	@rm -rf $(OLD)
	@git clone --quiet . $(OLD)
	@git -C $(OLD) checkout --quiet 6bc8ad4
	@$(MAKE) --silent -C $(OLD) dev/installed
