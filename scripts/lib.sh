# shellcheck shell=bash
# Shared by scripts/test and scripts/demo: a private virtual environment. Sourced from the repository's root.

# These would reach every Python below and change what is tested or timed.
unset PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX PYTHONHOME PYTHONPATH PYTHONSTARTUP VIRTUAL_ENV

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

step() {
    printf '\n== %s\n' "$1" >&2
    shift
    "$@"
}

# The first interpreter that is recent enough and can make virtual environments.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
        if [ "$candidate" = "${PYTHON:-}" ]; then
            fail "\$PYTHON ($PYTHON) is not a Python 3.10 or later with venv"
        fi
    done
    fail "no Python 3.10 or later with venv was found (on Debian and Ubuntu: apt-get install python3-venv)"
}

# make_venv FOLDER PIP-INSTALL-ARGUMENT...
#
# Makes the virtual environment, or takes the one from last time if neither the interpreter, nor pyproject.toml, nor
# the arguments have changed. The mark is written last, so an interrupted installation is begun again.
make_venv() {
    local venv="$1" python mark wanted
    shift
    python="$(find_python)" || exit 1
    mark="$venv/.made-from"
    wanted="$("$python" -c 'import sys; print(sys.version, sys.base_prefix)') $PWD $* $(cksum <pyproject.toml)"
    if [ -f "$mark" ] && [ "$(cat "$mark")" = "$wanted" ] && "$venv/bin/python" -c '' 2>/dev/null; then
        return
    fi
    printf '== %s: a virtual environment with %s\n' "$venv" "$("$python" --version)" >&2
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    printf '%s\n' "$wanted" >"$mark"
}
