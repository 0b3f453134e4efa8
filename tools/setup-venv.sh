#!/bin/sh
# Makes .venv and installs amqflow into it, editable, with what developing needs, at the versions
# of requirements.lock. PYTHON chooses another interpreter.
set -eu
cd "$(dirname "$0")/.."

usable() { # an interpreter of 3.11 or later that can make virtual environments
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

choose() {
    for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.14}; do
        if usable "$candidate"; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

python=$(choose) || {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv >/dev/null
    fi
    python=$(choose) || {
        echo "amqflow needs Python 3.11 or later with its venv module; set PYTHON to one" >&2
        exit 1
    }
}

[ -x .venv/bin/python ] || "$python" -m venv .venv
# Constraints, not requirements: another platform or Python leaves out what it does not need.
.venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint requirements.lock --editable '.[dev]'
# As pip does for a package that is not editable: without it each start compiles all of it again
# where PYTHONDONTWRITEBYTECODE is set.
.venv/bin/python -m compileall -q amqflow
