#!/usr/bin/env bash
# Runs every fuzz target of a build folder from its seeds: tools/fuzz.sh BUILD_DIR [SECONDS [NAME...]]
# New inputs stay in BUILD_DIR/corpus; a crash is kept in BUILD_DIR/crashes and makes this fail.
set -euo pipefail
cd "$(dirname "$0")/.."

build=${1:?usage: tools/fuzz.sh BUILD_DIR [SECONDS [NAME...]]}
seconds=${2:-60}
names=("${@:3}")
mkdir -p "$build/crashes"
failed=0
for source in fuzz/*/*_fuzz.cc; do
  name=$(basename "$source" .cc)
  short=${name%_fuzz}
  if [ ${#names[@]} -gt 0 ] && [[ " ${names[*]} " != *" $short "* ]]; then continue; fi
  corpus="$build/corpus/$short"
  seeds="$(dirname "$source")/seeds/$short"
  mkdir -p "$corpus"
  folders=("$corpus")
  [ -d "$seeds" ] && folders+=("$seeds")
  echo "== $name, $seconds s"
  "$build/fuzz/$name" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=0 \
    -verbosity=0 -artifact_prefix="$build/crashes/$short-" "${folders[@]}" || failed=1
done
exit "$failed"
