#!/bin/sh
# Writes requirements.lock: the versions that a fresh install with every development need gets.
set -eu
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"${PYTHON:-python3.11}" -m venv "$fresh"
"$fresh/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
{
    echo "# Made by \`make lock\`: the versions CI runs with. Ranges are in pyproject.toml."
    "$fresh/bin/python" -m pip freeze --exclude-editable
} >requirements.lock
