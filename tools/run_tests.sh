#!/usr/bin/env bash
# Runs the tests of a build folder (from the repository's root): tools/run_tests.sh BUILD_DIR [ctest arguments]
# The last line is "N passed, N failed"; the exit code is 0 only when something passed and nothing
# failed. JOBS: tests at a time (2). VERIFY: folders for `pinhole verify`, whose counts are added.
set -uo pipefail
cd "$(dirname "$0")/.."

build=${1:?usage: tools/run_tests.sh BUILD_DIR [ctest arguments]}
shift
report=$(mktemp)
trap 'rm -f "$report"' EXIT
export TSAN_OPTIONS="suppressions=$PWD/tools/tsan.supp ${TSAN_OPTIONS:-}"

ctest --test-dir "$build" --output-junit "$report" --output-on-failure -j "${JOBS:-2}" "$@"
ctest_code=$?
read -r passed failed < <(python3 tools/count_tests.py "$report" "$ctest_code")
passed=${passed:-0}
failed=${failed:-1}

if [ -n "${VERIFY:-}" ]; then
  # shellcheck disable=SC2086 # a list of folders
  output=$("$build/pinhole" verify $VERIFY 2>&1)
  verify_code=$?
  echo "$output"
  if [[ "$(tail -n 1 <<<"$output")" =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    passed=$((passed + BASH_REMATCH[1]))
    failed=$((failed + BASH_REMATCH[2]))
    [ "$verify_code" -ne 0 ] && [ "${BASH_REMATCH[2]}" -eq 0 ] && failed=$((failed + 1))
  else
    echo "pinhole verify ended with code $verify_code and without its summary"
    failed=$((failed + 1))
  fi
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
