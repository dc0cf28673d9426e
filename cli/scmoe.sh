#!/bin/sh
# The command as users start it, also as `kubectl scmoe`. It runs with the Node that package.json
# pins, or with the Node of the system if that one is not installed.
folder=$(dirname "$(readlink -f "$0")")
node=$folder/../node_modules/.bin/node
[ -x "$node" ] || node=node
case $("$node" --version 2>/dev/null) in
v2[4-9].* | v[3-9][0-9].* | v22.19.* | v22.[2-9][0-9].*) ;;
*)
  echo "scmoe needs Node 24 (or 22.19 and later): run 'npm ci' in $(readlink -f "$folder/..")" >&2
  exit 1
  ;;
esac
exec "$node" "$folder/scmoe.ts" "$@"
