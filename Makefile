# Two commands do everything, set-up included: `make quickstart` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SYSTEM ?= lvm
WORKDIR ?= runs/quickstart$(if $(filter-out lvm,$(SYSTEM)),_$(SYSTEM))
# What a system's quickstart needs: the extra quickstart, or one of its own.
EXTRA := quickstart$(addprefix -,$(filter vary unified,$(SYSTEM)))
# On few or busy cores eight devices wait for each other longer than the 40 s after which XLA ends the process.
EIGHT_DEVICES := XLA_FLAGS="--xla_force_host_platform_device_count=8 \
	--xla_cpu_collective_call_terminate_timeout_seconds=300"
# Each of the two takes a stretch of the tests, so what a file prepares is seldom prepared twice.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist worksteal

.PHONY: help quickstart demo test test-slow lint docs clean

help:
	@echo "make quickstart   pixels -> tokens -> a small LVM -> answers and $(WORKDIR)/report.html (about 8 minutes on 2 cores, installation included)"
	@echo "make demo         a local page to ask trained models with your own pictures"
	@echo "make test         the tests that take minutes in all"
	@echo "make test-slow    the ones that make test leaves out"
	@echo "make lint         ruff, pyright and the licences of all packages"
	@echo "make docs         this project's documentation as a site: site/index.html"
	@echo "make clean        removes $(WORKDIR); the environment in $(VENV) stays"

quickstart: $(VENV)/.installed-$(EXTRA)
	$(BIN)/python experiments/quickstart.py --system=$(SYSTEM) --workdir=$(WORKDIR)

demo: $(VENV)/.installed-demo
	$(BIN)/python experiments/demo.py$(if $(filter-out file,$(origin WORKDIR)), --workdir=$(WORKDIR))

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow" --ignore=tests/devices8
	$(EIGHT_DEVICES) $(PYTEST) -m "not slow" tests/devices8

test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow --ignore=tests/devices8
	$(EIGHT_DEVICES) $(PYTEST) -m slow tests/devices8

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pip-licenses

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --clean
	@echo "open site/index.html, or for the search: $(BIN)/python -m http.server --directory site"

clean:
	rm -rf $(WORKDIR)

# One stamp an extra: a second run installs nothing, a changed requirement installs again.
$(VENV)/.installed-%: setup.py requirements.txt
	@test -x $(BIN)/python || (echo "making $(VENV) (once)"; $(PYTHON) -m venv $(VENV))
	@echo "installing lvm_jax[$*] into $(VENV) (once, 1-2 minutes)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@
