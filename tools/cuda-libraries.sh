#!/usr/bin/env bash
# Fills build/cuda-libraries with the libraries that the CUDA backend opens at run time, cuBLASLt
# and NCCL, from NVIDIA's wheels on PyPI, with the license of each wheel. images/worker-gpu copies
# them. The driver's libcuda.so.1 comes from the node. This script needs no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."

wheels=tools/cuda-libraries.requirements.txt
libraries=(libcublasLt.so.13 libnccl.so.2)

folder=build/cuda-libraries
stamp="$folder/.wheels"
cmp -s "$wheels" "$stamp" && exit
python3 -m pip --version >/dev/null 2>&1 || { echo "cuda-libraries: there is no pip; run: apt-get install -y python3-pip" >&2; exit 1; }
mkdir -p build
work=$(mktemp -d build/cuda-libraries.XXXXXX)
trap 'rm -rf "$work"' EXIT
PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip download --quiet --no-deps --dest "$work" \
  --only-binary=:all: --platform manylinux_2_27_x86_64 --platform manylinux_2_18_x86_64 \
  --require-hashes --requirement "$wheels" >&2
python3 - "$work" "${libraries[@]}" <<'PYTHON'
import glob, os, shutil, sys, zipfile
work, libraries = sys.argv[1], set(sys.argv[2:])
os.mkdir(work + '/lib')
for wheel in glob.glob(work + '/*.whl'):
    with zipfile.ZipFile(wheel) as archive:
        wheel_name, version = os.path.basename(wheel).split('-')[:2]
        texts = [n for n in archive.namelist() if '.dist-info/' in n and 'licen' in n.rsplit('/', 1)[-1].lower()]
        if not texts:
            sys.exit(f'cuda-libraries: {os.path.basename(wheel)} has no license')
        with open(f"{work}/lib/{wheel_name.replace('_', '-')}=={version}.license.txt", 'wb') as target:
            for name in texts:
                target.write(archive.read(name) + b'\n')
        for name in archive.namelist():
            if os.path.basename(name) in libraries:
                with archive.open(name) as source, open(work + '/lib/' + os.path.basename(name), 'wb') as target:
                    shutil.copyfileobj(source, target)
missing = libraries - set(os.listdir(work + '/lib'))
if missing:
    sys.exit('cuda-libraries: the wheels do not hold ' + ', '.join(sorted(missing)))
PYTHON
cp "$wheels" "$work/lib/.wheels"
rm -rf "$folder"
mv "$work/lib" "$folder"
