#!/usr/bin/env bash
# Formats the C++ sources in place; with --check only tells, and fails when one differs.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=(-i)
[ "${1:-}" = --check ] && mode=(--dry-run --Werror)
git ls-files -co --exclude-standard '*.cc' '*.h' '*.cu' '*.cuh' ':!*.generated.*' | xargs -r clang-format "${mode[@]}"
