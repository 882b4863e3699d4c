# In place of conda's `activate`, for the eval scripts of SWE-bench's rows: their environment testbed
# is all that there is here, or the virtual environment in the working folder.
conda() {
    [ "$1" = activate ] || return 0
    if [ -f /testbed/.venv/bin/activate ]; then . /testbed/.venv/bin/activate; fi
    export CONDA_DEFAULT_ENV=testbed
}
[ $# = 0 ] || conda activate "$@"
