#!/usr/bin/env bash
# Prints the folder of a CUDA compiler: $CUDA_HOME, otherwise the toolkit of the `nvcc` on PATH,
# otherwise a folder in the cache that this script fills from NVIDIA's wheels on PyPI. The wheels
# are nvcc, its runtime, and the headers of cuBLAS, whose library is opened at run time. Needs no
# GPU.
set -euo pipefail

tools=$(dirname "$(readlink -f "$0")")

if [ -n "${CUDA_HOME:-}" ]; then echo "$CUDA_HOME"; exit; fi
if nvcc=$(command -v nvcc); then dirname "$(dirname "$(readlink -f "$nvcc")")"; exit; fi

cache=${SCMOE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/scmoe}
folder=$cache/cuda-13.0
mkdir -p "$cache"
exec 9>"$folder.lock"
flock 9
if ! [ -e "$folder/bin/nvcc" ]; then
  python3 -m pip --version >/dev/null 2>&1 || { echo "cuda: there is no nvcc, and no pip to install it; run: apt-get install -y python3-pip" >&2; exit 1; }
  work=$(mktemp -d "$cache/cuda.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  pip() { PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip "$@" --quiet >&2; }
  pip install --no-deps --target "$work/wheels" --require-hashes --requirement "$tools/cuda-compiler.requirements.txt"
  grep '^nvidia-cublas==' "$tools/cuda-libraries.requirements.txt" >"$work/cublas.txt"
  pip download --no-deps --dest "$work/cublas" --require-hashes --requirement "$work/cublas.txt"
  python3 - "$work" <<'PYTHON'
import glob, os, sys, zipfile
work = sys.argv[1]
for wheel in glob.glob(work + '/cublas/*.whl'):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if '/include/' in name and name.endswith('.h'):
                target = work + '/wheels/nvidia/cu13/include/' + os.path.basename(name)
                with open(target, 'wb') as out:
                    out.write(archive.read(name))
PYTHON
  rm -rf "$folder"
  mv "$work/wheels/nvidia/cu13" "$folder"
fi
echo "$folder"
