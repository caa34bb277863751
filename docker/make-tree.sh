#!/bin/sh
# Makes what cachepod's image adds to its base, under a folder of its own: run by docker/runpod.Dockerfile.slim.
#
#   make-tree.sh OUT
#
# Needs python3 with ensurepip. pip's configuration and environment variables apply; the same in gives the same out,
# whatever the clock says, if SOURCE_DATE_EPOCH is set.
set -eu

out="$1"
tree="$out/opt/cachepod"
work="$(mktemp -d)"

# Authorities of the builder's own, where its index or proxy needs them.
if [ -s /run/secrets/certificates ]; then export PIP_CERT=/run/secrets/certificates; fi
# An argument that was not given reaches us as an empty variable.
[ -n "${PIP_INDEX_URL:-}" ] || unset PIP_INDEX_URL
[ -n "${PIP_EXTRA_INDEX_URL:-}" ] || unset PIP_EXTRA_INDEX_URL
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
export PYTHONDONTWRITEBYTECODE=1
pip() { "$work/tools/bin/python" -m pip "$@"; }

python3 -m venv "$work/tools"
pip install --quiet --require-hashes --no-deps --only-binary :all: -r docker/requirements-build.txt
pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$work/wheels" .

# A virtual environment has the interpreter's own start, and programs that it starts by sys.executable find it again.
python3 -m venv --without-pip --symlinks "$tree"
install() { pip install --quiet --no-deps --no-compile --ignore-installed --no-warn-script-location --prefix "$tree" "$@"; }
install --require-hashes --only-binary :all: -r docker/requirements.txt
install --no-index "$work"/wheels/cachepod-*.whl

# -I: no PYTHONPATH or folder of the user's may put something else in the place of cachepod's own modules.
cat >"$tree/bin/cachepod" <<'PYTHON'
#!/opt/cachepod/bin/python3 -I
import sys

from cachepod.cli.main import main

sys.exit(main())
PYTHON
chmod 755 "$tree/bin/cachepod"
python3 docker/trim.py "$tree"
# Names what it was made for: in the image the tree lies at /opt/cachepod.
sed -i "s#$tree#/opt/cachepod#g" "$tree/pyvenv.cfg"

# Bytecode that is believed without a look at its source's time: layers are free to change that. In one process and
# without randomised hashes it is the same every time.
unset PYTHONDONTWRITEBYTECODE
PYTHONHASHSEED=0 python3 -m compileall -q -s "$out" --invalidation-mode unchecked-hash "$tree/lib"

mkdir -p "$out/usr/local/bin"
# uv as well: install-runpod-deps.sh does without cachepod, and the base may have no pip.
ln -s /opt/cachepod/bin/cachepod /opt/cachepod/bin/uv "$out/usr/local/bin/"
for script in startup-runpod.sh install-runpod-deps.sh healthcheck-runpod.sh; do
    cp "scripts/$script" "$out/usr/local/bin/$script"
    chmod 755 "$out/usr/local/bin/$script"
done

chmod -R u=rwX,go=rX "$out"
find "$out" -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH:-0}" {} +
rm -rf "$work"
