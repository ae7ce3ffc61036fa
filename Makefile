# tciafs in two words: "make demo", "make test". Every target first installs what it needs, and only what is missing.
#   VENV=DIR         the virtual environment (.venv)         PYTHON=PATH      the interpreter to build it with
#   DEMO_ARGS=…      passed on to "tciafs demo"              PYTEST_ARGS=…    passed on to pytest
#   WORKERS=N        processes that share the test files (3; 0: none but pytest's own)
#   BENCH_ARGS=…     passed on to "python -m tests.bench"
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SILENT:
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help deps demo test check bench pictures clean run-packages test-packages FORCE
unexport PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX

VENV ?= .venv
WORKERS ?= 3
BIN := $(VENV)/bin
INTERPRETERS := $(or $(PYTHON),python3.13 python3.12 python3.11 python3)

# Debian packages, and the commands by which a system without apt-get is judged. (dbus-x11 is there because Thunar
# would else bring all of systemd along.)
RUN_PACKAGES := fuse3 libfuse3-dev pkg-config gcc python3-dev python3-venv
RUN_COMMANDS := fusermount3 pkg-config gcc
TEST_PACKAGES := dcmtk dcm2niix rsync tar xz-utils zip unzip file attr libgdcm-tools \
                 xvfb openbox dbus-daemon dbus-x11 xdotool xclip pcmanfm thunar
TEST_COMMANDS := dcmdump dcm2niix rsync tar xz zip unzip file getfattr gdcminfo \
                 Xvfb openbox dbus-daemon xdotool xclip pcmanfm thunar
PICTURE_PACKAGES := aeskulap papirus-icon-theme gnome-themes-extra librsvg2-common
PICTURE_COMMANDS := aeskulap
# Public clients of NBIA, each in an environment of its own; what they need for other archives is left out.
CLIENTS := tcia-utils nbiatoolkit
CLIENT_tcia-utils := tcia-utils==3.3.5
CLIENT_nbiatoolkit := nbiatoolkit==1.3.1
BENCH_PACKAGES := curl unzip dcm2niix
BENCH_COMMANDS := curl unzip dcm2niix

define FUNCTIONS
# Hide a command's output; if it fails, show all of it (without the names of mirrors and registries).
quietly() {
    local log status=0
    log=$$(mktemp)
    "$$@" </dev/null >"$$log" 2>&1 || status=$$?
    if [ $$status != 0 ]; then
        sed -E -e "s#([a-z]+://)[^/ '\")]+#\1…#g" -e "s#(host|resolv(e|ing)|[Cc]onnect(ion)? to)(=| )'?[a-zA-Z0-9.:-]+'?#\1\4…#g" "$$log" >&2
        echo "Failed: $$*" >&2
    fi
    rm -f "$$log"
    return $$status
}

# Install Debian packages: need_packages "PACKAGES" "COMMANDS". dpkg's word counts; without apt-get, the commands' presence.
need_packages() {
    local package command missing=() sudo=() apt
    if ! command -v apt-get >/dev/null; then
        for command in $$2; do command -v "$$command" >/dev/null || missing+=("$$command"); done
        [ $${#missing[@]} = 0 ] || echo "No apt-get here and no $${missing[*]}: please install what Debian calls $$1"
        return 0
    fi
    local installed=$$'\n'$$(dpkg-query -W -f '$${Package} $${db:Status-Status}\n' $$1 2>/dev/null || true)$$'\n'
    for package in $$1; do
        [[ $$installed == *$$'\n'"$$package installed"$$'\n'* ]] || missing+=("$$package")
    done
    [ $${#missing[@]} != 0 ] || return 0
    if [ "$$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "Not root and no sudo: please have root run: apt-get install $${missing[*]}"; return 0; }
        sudo=(sudo)
    fi
    echo "Installing Debian packages: $${missing[*]}"
    apt=("$${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
    quietly update_and_install "$${missing[@]}"
}

# A source of somebody else's that cannot be reached is not our failure, so only the installation counts.
update_and_install() {
    "$${apt[@]}" update || true
    "$${apt[@]}" install --no-install-recommends "$$@"
}

# Print the first interpreter that can build the virtual environment, preferably one with C headers (pyfuse3 is compiled).
find_python() {
    local name path kind without_headers=
    for name in $(INTERPRETERS); do
        for path in $$(type -aP "$$name"); do
            kind=$$("$$path" -c "$$PROBE" 2>/dev/null) || continue
            if [ "$$kind" = headers ]; then echo "$$path"; return; fi
            without_headers=$${without_headers:-$$path}
        done
    done
    if [ -z "$$without_headers" ]; then
        echo "tciafs needs Python 3.11 or newer with its venv module (Debian: python3-venv); none found as: $(INTERPRETERS)" >&2
        return 1
    fi
    echo "No Python.h for $$without_headers (Debian: python3-dev): building pyfuse3 will probably fail" >&2
    echo "$$without_headers"
}
endef

define PROBE
import ensurepip, os, sys, sysconfig, venv
if sys.version_info < (3, 11):
    sys.exit(1)
print("headers" if os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")) else "bare")
endef
export PROBE

help:
	echo 'make demo     mount an embedded archive with real DICOM, no network needed (DEMO_ARGS=--once: look around and leave)'
	echo 'make test     run the tests and report their coverage (PYTEST_ARGS="-k name")'
	echo 'make check    formatting, lint, types, import rules'
	echo 'make bench    measure the drive beside what one would use instead (BENCH_ARGS="--case series --rounds 1")'
	echo 'make pictures take the pictures of the README anew (docs/pictures)'
	echo 'make deps     only install what these need: Debian packages for running, $(VENV) with everything'
	echo 'make clean    remove $(VENV), caches and build products'

deps: run-packages $(VENV)/.run $(VENV)/.develop
	:

demo: run-packages $(VENV)/.run
	exec $(BIN)/tciafs demo $(DEMO_ARGS)

# The coverage limit holds for the whole suite, so not when PYTEST_ARGS may have chosen a part of it.
test: run-packages test-packages $(VENV)/.run $(VENV)/.develop $(CLIENTS:%=$(VENV)/clients/%/.installed)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report $(if $(strip $(PYTEST_ARGS)),--fail-under=0)

check: deps
	failed=()
	$(BIN)/ruff format --check || failed+=('ruff format')
	$(BIN)/ruff check || failed+=('ruff check')
	$(BIN)/mypy || failed+=(mypy)
	$(BIN)/lint-imports --no-logo || failed+=(lint-imports)
	[ $${#failed[@]} = 0 ] || { IFS=,; echo "Failed: $${failed[*]}" >&2; exit 1; }

bench: deps
	$(FUNCTIONS)
	need_packages "$(BENCH_PACKAGES)" "$(BENCH_COMMANDS)"
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

pictures: deps test-packages
	$(FUNCTIONS)
	need_packages "$(PICTURE_PACKAGES)" "$(PICTURE_COMMANDS)"
	$(BIN)/python -m tests.pictures

clean:
	rm -rf dist build .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find tciafs tests -name __pycache__ -type d -prune -exec rm -rf {} +
	if [ -e $(VENV)/pyvenv.cfg ]; then rm -rf $(VENV); fi

run-packages:
	$(FUNCTIONS)
	need_packages "$(RUN_PACKAGES)" "$(RUN_COMMANDS)"

test-packages:
	$(FUNCTIONS)
	need_packages "$(TEST_PACKAGES)" "$(TEST_COMMANDS)"

# The stamps hold the path of the tree that is installed: an environment copied from elsewhere is built anew.
ifneq ($(shell test -x $(BIN)/python && cat $(VENV)/.run 2>/dev/null),$(CURDIR))
$(VENV)/.run: FORCE
endif

$(VENV)/.run: pyproject.toml | run-packages
	$(FUNCTIONS)
	building='Building pyfuse3 and installing the Python packages (about a minute)'
	work=$$([ -e $@ ] && echo 'Bringing the Python packages in line with pyproject.toml' || echo "$$building")
	if [ "$$(cat $@ 2>/dev/null || pwd)" != "$$(pwd)" ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then
	    python=$$(find_python)
	    echo "Making $(VENV) with $$("$$python" --version)"
	    quietly "$$python" -m venv --clear $(VENV)
	    work=$$building
	fi
	rm -f $@
	echo "$$work"
	quietly $(BIN)/python -m pip install --disable-pip-version-check --no-input --upgrade 'pip>=25.1'
	quietly $(BIN)/python -m pip install --disable-pip-version-check --no-input --editable '.[demo,login]'
	echo "$(CURDIR)" >$@

$(VENV)/.develop: $(VENV)/.run
	$(FUNCTIONS)
	echo "Installing the Python packages for tests and checks"
	quietly $(BIN)/python -m pip install --disable-pip-version-check --no-input --group test --group check
	touch $@

$(VENV)/clients/%/.installed: $(VENV)/.run Makefile
	$(FUNCTIONS)
	echo "Installing $(CLIENT_$*), which tests compare with a drive"
	[ -x $(@D)/bin/python ] || quietly $(BIN)/python -m venv --without-pip $(@D)
	pip=($(BIN)/python -m pip --python $(@D)/bin/python install --disable-pip-version-check --no-input --no-compile)
	quietly "$${pip[@]}" --no-deps '$(CLIENT_$*)'
	quietly "$${pip[@]}" --group client-$*
	touch $@
