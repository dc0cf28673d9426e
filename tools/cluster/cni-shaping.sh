#!/bin/sh
# A CNI plugin: `bandwidth` with a burst that fits the rate. containerd asks for a burst of 512 MiB whatever the rate, so
# that a pod with the annotation kubernetes.io/ingress-bandwidth: 20M would send for minutes before anything slows it down.
# The names' first letter differs between versions of containerd; the plugin takes either.
config=$(cat)
for way in '[iI]ngress' '[eE]gress'; do
  rate=$(printf '%s' "$config" | sed -n "s/.*\"${way}Rate\":\([0-9]*\).*/\1/p")
  [ "${rate:-0}" -gt 0 ] || continue
  # 20 ms of the rate in bits, and never less than two of the largest packets that the kernel handles as one.
  burst=$((rate / 50))
  [ "$burst" -ge 1048576 ] || burst=1048576
  config=$(printf '%s' "$config" | sed "s/\(\"${way}Burst\":\)[0-9]*/\1$burst/")
done
printf '%s' "$config" | "${CNI_PATH%%:*}/bandwidth"
