#!/usr/bin/env bash
# Checks the tracked C++ sources against .clang-format (version 14): tools/format.sh [--fix]
set -euo pipefail
cd "$(dirname "$0")/.."

formatter=$(command -v clang-format-14 || command -v clang-format || true)
if [ -z "$formatter" ] || ! "$formatter" --version | grep -q 'version 14\.'; then
  echo "format: clang-format 14 is not here; tools/setup.sh --with format installs it" >&2
  exit 1
fi
mapfile -t files < <(git ls-files -- 'src/*.cc' 'src/*.h' 'src/*.inl' 'tests/*.cc' 'tests/*.h' \
  'fuzz/*.cc' 'fuzz/*.h' 'bench/*.cc')
[ ${#files[@]} -eq 0 ] && exit 0
if [ "${1-}" = --fix ]; then
  "$formatter" -i "${files[@]}"
else
  "$formatter" --dry-run -Werror --ferror-limit=1 "${files[@]}"
fi
