#!/usr/bin/env bash
# Fills build/cuda-libraries with the libraries that the CUDA backend opens at run time, cuBLASLt
# and NCCL, from NVIDIA's wheels on PyPI. images/worker-gpu copies them. The driver's libcuda.so.1
# comes from the node. This script needs no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."

# The version of cuBLAS must be that of tools/cuda.sh, with whose headers the backend is built.
wheels=(nvidia-cublas==13.0.2.14 nvidia-nccl-cu13==2.28.9)
libraries=(libcublasLt.so.13 libnccl.so.2)

folder=build/cuda-libraries
stamp="$folder/.wheels"
[ "$(cat "$stamp" 2>/dev/null)" = "${wheels[*]}" ] && exit
python3 -m pip --version >/dev/null 2>&1 || { echo "cuda-libraries: there is no pip; run: apt-get install -y python3-pip" >&2; exit 1; }
mkdir -p build
work=$(mktemp -d build/cuda-libraries.XXXXXX)
trap 'rm -rf "$work"' EXIT
PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip download --quiet --no-deps --dest "$work" \
  --only-binary=:all: --platform manylinux_2_27_x86_64 --platform manylinux_2_18_x86_64 "${wheels[@]}" >&2
python3 - "$work" "${libraries[@]}" <<'PYTHON'
import glob, os, shutil, sys, zipfile
work, libraries = sys.argv[1], set(sys.argv[2:])
os.mkdir(work + '/lib')
for wheel in glob.glob(work + '/*.whl'):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if os.path.basename(name) in libraries:
                with archive.open(name) as source, open(work + '/lib/' + os.path.basename(name), 'wb') as target:
                    shutil.copyfileobj(source, target)
missing = libraries - set(os.listdir(work + '/lib'))
if missing:
    sys.exit('cuda-libraries: the wheels do not hold ' + ', '.join(sorted(missing)))
PYTHON
echo "${wheels[*]}" >"$work/lib/.wheels"
rm -rf "$folder"
mv "$work/lib" "$folder"
