#!/usr/bin/env bash
# Everything that needs a GPU, in one run and one file: verifies attention and the torch plugin's own kernels, times the GPT-2
# 124M training step without and with those kernels against PyTorch's, compares backends, runs the quickstart's stages with few
# steps, and verifies the whole torch backend. Takes under nine minutes.
#
#   bash benches/gpu.sh --out result.json                     in a distribution (cargo xtask dist)
#   bash benches/gpu.sh --device cpu --quick --out try.json   tries the script itself without a GPU
#
# Needs a Python 3.11 with PyTorch 2.11.0 (PYTHON=..., else python3) and nothing else; gpu.py in the same folder does the work.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
python=${PYTHON:-python3}

if ! "$python" -c 'import tomllib' 2>/dev/null; then
    echo "error: $python is not Python 3.11 or newer; name one with PYTHON=..." >&2
    exit 2
fi
if ! torch=$("$python" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])' 2>/dev/null); then
    echo "error: $python has no torch; name a Python with PyTorch 2.11.0 by PYTHON=..." >&2
    exit 2
fi

# The plugin looks for libtorch next to itself. An existing folder is kept; a link is replaced.
plugins=$root/plugins
if [ ! -x "$root/telos" ]; then
    plugins=${CARGO_TARGET_DIR:-$root/target}/release/plugins
fi
if [ ! -d "$plugins" ]; then
    echo "error: there is no $plugins; run this in a distribution, or after cargo xtask build" >&2
    exit 2
fi
if [ ! -e "$plugins/libtorch" ] || { [ -L "$plugins/libtorch" ] && [ -x "$root/telos" ]; }; then
    ln -sfn "$torch" "$plugins/libtorch" || echo "note: $plugins/libtorch cannot be linked; the torch plugin may not open" >&2
fi

exec "$python" "$here/gpu.py" --plugins "$plugins" "$@"
