"""Write into docs/guarantees.rst how many cases each promise has: what pytest collects of the tests that it names.

    python tools/count_cases.py

They depend on the machine: most tests run for each compiled variant that the CPU can run.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

TREE = Path(__file__).parents[1]
PAGE = TREE / "docs" / "guarantees.rst"


def collected() -> Counter[tuple[str, str]]:
    """Cases of each (file, test)."""
    command = [sys.executable, "-P", "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests"]
    listing = subprocess.run(command, cwd=TREE, text=True, capture_output=True, check=True).stdout
    return Counter(re.findall(r"(test_\w+\.py)::(test_\w+)", listing))


def main() -> int:
    cases = collected()
    file = ""

    def counted(row: re.Match[str]) -> str:
        nonlocal file
        promise, tests = row.groups()
        count = 0
        for name in re.findall(r"``(test_\w+(?:\.py)?)``", tests):
            if name.endswith(".py"):
                file = name
                continue
            if not cases[file, name]:
                print(f"{file}: {name} has no cases here, and counts as none", file=sys.stderr)
            count += cases[file, name]
        return f"   * - {promise}     - {tests}     - {count}\n"

    row = r"   \* - ((?:.|\n)*?\n)     - (``(?:.|\n)*?\n)(?:     - \d+\n)?(?=   \* - |\n)"
    PAGE.write_text(re.sub(row, counted, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
