# Each target sets up what it needs: a virtual environment in .venv, made anew when pyproject.toml changes.
VENV := .venv
STAMP := $(VENV)/.installed
PYTHON := $(shell for python in python3.12 python3.11 python3.13 python3.10 python3; do \
	command -v $$python >/dev/null && $$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& echo $$python && break; done)

FLINK := build/flink
PRISM := build/bin/prism
ON_FLINK = --runner=FlinkRunner --flink_master=localhost:8081 --flink_version=1.19 \
	--flink_job_server_jar=$(CURDIR)/$(FLINK)/job-server.jar --environment_type=PROCESS \
	'--environment_config={"command":"$(CURDIR)/$(VENV)/bin/dicomveil-worker"}' --parallelism=2

.PHONY: run test flink test-flink flink-stop prism test-prism spark test-spark campaign campaign-flink install lint format bench clean

run: $(STAMP)
	$(VENV)/bin/python -m pipelines.demo $(if $(filter flink,$(RUNNER)),$(ON_FLINK)) $(ARGS)

test: $(STAMP)
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal $(if $(LONG),,-m "not long") $(ARGS)

# A cluster on this machine; `make run RUNNER=flink` uses it then.
flink: $(STAMP)
	PYTHON=$(CURDIR)/$(VENV)/bin/python deploy/flink/cluster.sh start $(FLINK)

test-flink: flink
	DICOMVEIL_FLINK=$(CURDIR)/$(FLINK) $(VENV)/bin/python -m pytest tests/test_flink.py $(ARGS); \
		status=$$?; deploy/flink/cluster.sh stop $(FLINK); exit $$status

flink-stop:
	deploy/flink/cluster.sh stop $(FLINK)

# Beam's runner for one machine, of the version that Python's has; Go is needed.
prism: $(STAMP)
	GOBIN=$(CURDIR)/$(dir $(PRISM)) go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$$($(VENV)/bin/python -c 'import apache_beam; print(apache_beam.__version__)')

test-prism: prism
	DICOMVEIL_PRISM=$(CURDIR)/$(PRISM) $(VENV)/bin/python -m pytest -n 2 tests/pipelines/test_portable_runners.py
	DICOMVEIL_RUNNER="--runner=PrismRunner --prism_location=$(CURDIR)/$(PRISM)" $(VENV)/bin/python -m pytest -n 2 tests/pipelines/test_known.py tests/pipelines/test_ledger.py $(ARGS)

# Spark inside Beam's job server; Java and Maven are needed.
spark: build/spark/job-server.jar

build/spark/job-server.jar: deploy/job-server.xml $(shell find deploy/job-server -name "*.java")
	mvn -q -B -f $< -P spark package -Dto=$(CURDIR)/$(@D)

test-spark: $(STAMP) spark
	DICOMVEIL_SPARK=$(CURDIR)/build/spark/job-server.jar $(VENV)/bin/python -m pytest tests/pipelines/test_portable_runners.py $(ARGS)

# A hundred deaths of a run that moves its sources, here and in stores, and of one in a store; then archives of two sizes
# in a store, and of made-up scans here. What was seen goes to build/campaign as JSON.
SEEN := build/campaign
DYING = DICOMVEIL_CAMPAIGN=$(or $(KILLS),100) $(VENV)/bin/python -m pytest -n 2 $(ARGS) --junitxml=$(SEEN)/deaths
campaign: $(STAMP)
	rm -f $(SEEN)/deaths_*.xml
	-$(DYING)_purge.xml tests/pipelines/test_purge.py
	-$(DYING)_purge_in_stores.xml tests/pipelines/test_purge_in_stores.py -k "death or killed"
	-$(DYING)_in_stores.xml tests/pipelines/test_stores_end_to_end.py -k killed
	$(VENV)/bin/python -m benchmarks.deaths $(SEEN)/deaths_*.xml --json $(SEEN)/deaths.json
	$(VENV)/bin/python -m benchmarks.object_storage --objects $(or $(OBJECTS),20000 200000) --json $(SEEN)/object_storage.json
	$(VENV)/bin/python -m benchmarks.scale --instances $(or $(SCANS),100000 1000000 10000000) --json $(SEEN)/scale_local.json

# The same on a cluster of this machine, and what it adds.
campaign-flink: flink
	$(VENV)/bin/python -m benchmarks.cluster --instances $(or $(INSTANCES),20000) --json $(SEEN)/cluster.json $(ON_FLINK)
	$(VENV)/bin/python -m benchmarks.scale --instances $(or $(SCANS),100000 1000000 10000000) --json $(SEEN)/scale_flink.json $(ON_FLINK)
	deploy/flink/cluster.sh stop $(FLINK)

install: $(STAMP)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(STAMP)
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .

bench: $(STAMP)
	$(VENV)/bin/python benchmarks/rewrite.py $(ARGS)

clean:
	rm -rf $(VENV) .run

$(STAMP): pyproject.toml setup.py
	@test -n "$(PYTHON)" || { echo "dicomveil needs Python 3.10 to 3.13 with its venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@
