#!/usr/bin/env bash
# Formats the C++ sources in place. With --check it changes nothing and fails if a file differs.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=(-i)
[ "${1:-}" = --check ] && mode=(--dry-run --Werror)
git ls-files -co --exclude-standard '*.cc' '*.h' '*.cu' '*.cuh' ':!*.generated.*' | xargs -r clang-format "${mode[@]}"
