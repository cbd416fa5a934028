#!/usr/bin/env python3
"""Counts a ctest JUnit report: count_tests.py REPORT CTEST_EXIT_CODE -> "PASSED FAILED".

A test that could not be started (not built, missing program) failed; one that skipped itself counts
as neither and is named on stderr with its reason. A report that is missing or cannot be read, or a
ctest that failed without a failed test in it, is one failure.
"""
import sys
import xml.etree.ElementTree as ElementTree


def count(path, ctest_code):
    passed = failed = 0
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        print(f"no test report: {error}", file=sys.stderr)
        return 0, 1
    for case in cases:
        status = case.get("status", "")
        skipped = case.find("skipped")
        reason = "" if skipped is None else skipped.get("message", "")
        if status == "run" and case.find("failure") is None:
            passed += 1
        elif status == "disabled" or (status == "notrun" and reason.startswith("SKIP_")):
            print(f"skipped: {case.get('name')} ({reason or status})", file=sys.stderr)
        else:
            failed += 1
    if ctest_code != 0 and failed == 0:
        failed = 1
    return passed, failed


if __name__ == "__main__":
    print(*count(sys.argv[1], int(sys.argv[2])))
