#!/bin/sh
# A CNI plugin: `bandwidth` with a burst that fits the rate. containerd asks for a burst of 512 MiB
# whatever the rate, so a pod with the annotation kubernetes.io/ingress-bandwidth: 20M would receive
# for minutes before the limit takes effect. The first letter of the fields is small or capital,
# depending on the version of containerd; the plugin accepts both.
config=$(cat)
for way in '[iI]ngress' '[eE]gress'; do
  rate=$(printf '%s' "$config" | sed -n "s/.*\"${way}Rate\":\([0-9]*\).*/\1/p")
  [ "${rate:-0}" -gt 0 ] || continue
  # The bits of 20 ms, but at least two of the largest packets that the kernel handles as one.
  burst=$((rate / 50))
  [ "$burst" -ge 1048576 ] || burst=1048576
  config=$(printf '%s' "$config" | sed "s/\(\"${way}Burst\":\)[0-9]*/\1$burst/")
done
printf '%s' "$config" | "${CNI_PATH%%:*}/bandwidth"
