#!/usr/bin/env bash
# Brings a fresh clone to all that `npm run demo` and `npm test` need: Debian packages, npm packages
# with the pinned Node, and the native engine. A step whose result exists is skipped. Needs Node >=
# 20 with npm, g++, cmake, and Go for the embedded cluster.
#   tools/bootstrap.sh [--for demo|test|build]
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=demo
[ "${1:-}" = --for ] && purpose=${2:?--for needs demo, test or build}

say() { printf '\033[2m%s\033[0m\n' "bootstrap: $*"; }
die() { printf 'bootstrap: %s\n' "$*" >&2; exit 1; }

[ "$(uname -sm)" = "Linux x86_64" ] || die "this is $(uname -sm); ScMoE is built for Linux x86_64"

# Commands and files, with the Debian package that has each. An absolute path is a file; any other
# word is a command on PATH.
declare -A need=([g++]=g++ [cmake]=cmake [ninja]=ninja-build
  [/usr/include/nlohmann/json.hpp]=nlohmann-json3-dev)
uses_kind() { command -v kind >/dev/null && docker info >/dev/null 2>&1; }
if [ "$purpose" != build ] && ! uses_kind; then
  need+=([containerd]=containerd [runc]=runc [/usr/lib/cni/bridge]=containernetworking-plugins
    [iptables]=iptables [ip]=iproute2 [tc]=iproute2 [nsenter]=util-linux [openssl]=openssl)
fi
# The tests push images to a registry with skopeo.
[ "$purpose" != test ] || need+=([clang-format]=clang-format [skopeo]=skopeo)

missing=()
for what in "${!need[@]}"; do
  case $what in
    /*) [ -e "$what" ] || missing+=("${need[$what]}") ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$what" >/dev/null || missing+=("${need[$what]}") ;;
  esac
done
if [ ${#missing[@]} -gt 0 ]; then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  command -v apt-get >/dev/null || die "these packages are missing and this is not Debian: ${missing[*]}"
  [ "$(id -u)" = 0 ] || die "these packages are missing; run: sudo apt-get install -y ${missing[*]}"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  apt-get install -qq -y --no-install-recommends "${missing[@]}" >"$log" 2>&1 ||
    { apt-get update -qq >"$log" 2>&1 && apt-get install -qq -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1; } ||
    { cat "$log" >&2; die "apt-get install ${missing[*]} failed (above)"; }
  rm -f "$log"
fi

version=$(node --print 'process.versions.node' 2>/dev/null || echo 0)
[ "${version%%.*}" -ge 20 ] ||
  die "Node is ${version/#0/missing}, but npm needs Node 20 or newer to install the pinned one: run: apt-get install -y nodejs npm, or see https://nodejs.org"

# Go downloads its modules beside the steps below, which compute. The build waits for the rest.
if [ "$purpose" != build ] && ! uses_kind && command -v go >/dev/null &&
  ! compgen -G "$(go env GOMODCACHE)/k8s.io/kubernetes@*" >/dev/null; then
  downloads=()
  for module in etcd kubernetes coredns; do
    (cd tools/cluster/go/$module && exec go list -deps . >/dev/null 2>&1) &
    downloads+=($!)
  done
  trap 'kill "${downloads[@]}" 2>/dev/null || true' EXIT
fi

command -v npm >/dev/null || die "npm is missing; run: apt-get install -y nodejs npm"
stamp=node_modules/.bootstrap
if ! [ -e $stamp ] || ! cmp -s package-lock.json $stamp; then
  say "npm ci"
  npm ci --no-fund --no-audit --loglevel=error
  cp package-lock.json $stamp
fi
export PATH=$PWD/node_modules/.bin:$PATH

say "native engine"
[ -e build/native/build.ninja ] ||
  cmake -S worker/native -B build/native -G Ninja -DCMAKE_BUILD_TYPE=Release >build-native.log 2>&1 ||
  { cat build-native.log >&2; die "cmake failed (above)"; }
rm -f build-native.log
nice ninja -C build/native --quiet scmoe
say "ready: node $(node --version), $(npm --version | sed 's/^/npm /')"
