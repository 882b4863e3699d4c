#!/bin/sh
# Makes the virtual environment with the tested versions: setup-python.sh PYTHON VENV [pip options]
# EXTRAS=gym,view,dev leaves out torch and what else training needs.
set -eu
python=$1
venv=$2
shift 2
here=$(dirname "$0")

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "set-up: $python is not Python 3.11 or newer; name one that is: make PYTHON=python3.12" >&2
    exit 2
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "set-up: $python has no venv module; install it: sudo apt-get install python3-venv" >&2
        exit 2
    fi
    echo "set-up: installing python3-venv"
    apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv
fi
echo "set-up: virtual environment $venv with the versions of docker/constraints.txt (minutes, once)"
"$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check \
    --constraint "$here/constraints.txt" "$@" --editable ".[${EXTRAS:-train,gguf,gym,math,view,generate,dev}]"
# swesmith's wheel installs its own tests as a package `tests`, which would hide the folder of ours.
rm -rf "$venv"/lib/python3.*/site-packages/tests
