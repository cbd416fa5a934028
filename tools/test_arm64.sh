#!/usr/bin/env bash
# Builds the quant and kernels layers for arm64 and runs their tests under qemu: tools/test_arm64.sh [gtest
# arguments]. Needs g++-aarch64-linux-gnu, qemu-user and googletest's sources, and no arm64 library:
# what else these layers use is headers. OUT: build folder (build/arm64-kernels).
set -euo pipefail
cd "$(dirname "$0")/.."

compiler=aarch64-linux-gnu-g++
gtest=/usr/src/googletest
for tool in "$compiler" qemu-aarch64; do
  command -v "$tool" >/dev/null || {
    echo "test_arm64: '$tool' is missing: apt-get install g++-aarch64-linux-gnu qemu-user" >&2
    exit 1
  }
done
[ -d "$gtest" ] || {
  echo "test_arm64: $gtest is missing: apt-get install googletest" >&2
  exit 1
}

out=${OUT:-build/arm64-kernels}
mkdir -p "$out/generated/quant"
{
  echo "#pragma once"
  sed -n 's/^PINHOLE_FORMAT(.*"\(quant\/[a-z0-9_]*\.h\)").*/#include "\1"/p' src/quant/formats.def
} >"$out/generated/quant/blocks.h"

common=(-std=c++20 -O2 -g1 -DFMT_HEADER_ONLY -Isrc -Itests -I"$out/generated" -I"$gtest/googletest"
  -I"$gtest/googlemock" -I"$gtest/googletest/include" -I"$gtest/googlemock/include"
  -DPINHOLE_SOURCE_DIR="\"$PWD\"" -DPINHOLE_GOLDEN_DIR="\"$PWD/../shared/golden\"")
# The host's headers come last: only libraries that are headers alone may be found there.
common+=(-idirafter /usr/include)

sources=() # "source|flags"
definitions=()
while IFS=$'\t' read -r name arch flags; do
  have=0
  if grep -qE "^($arch)\$" <<<aarch64; then
    have=1
    sources+=("src/kernels/isa_$name.cc|$flags -O3")
  fi
  definitions+=("-DPINHOLE_HAVE_ISA_$name=$have")
done < <(sed -n 's/^PINHOLE_ISA(\([a-z0-9_]*\), "\([^"]*\)", [^"]*, "\([^"]*\)").*/\1\t\2\t\3/p' src/kernels/isa.def)
for source in src/quant/*.cc src/kernels/cpu.cc src/kernels/select.cc tests/quant/*_test.cc \
  tests/kernels/*_test.cc "$gtest"/googletest/src/gtest-all.cc "$gtest"/googlemock/src/gmock-all.cc \
  "$gtest"/googlemock/src/gmock_main.cc; do
  sources+=("$source|")
done

objects=()
for row in "${sources[@]}"; do
  source=${row%%|*}
  object=$out/$(tr '/' '_' <<<"${source%.cc}").o
  objects+=("$object")
  # A file that changed, or any header: these layers are small enough for that.
  if [ -f "$object" ] && [ -z "$(find src/quant src/kernels tests/kernels "$source" -newer "$object" \
    \( -name '*.h' -o -name '*.inl' -o -name '*.def' -o -path "$source" \) -print -quit)" ]; then
    continue
  fi
  echo "$source"
  # shellcheck disable=SC2086 # flags are words
  "$compiler" "${common[@]}" "${definitions[@]}" ${row#*|} -c "$source" -o "$object"
done
"$compiler" "${objects[@]}" -o "$out/tests" -static -pthread
qemu-aarch64 "$out/tests" "$@"
