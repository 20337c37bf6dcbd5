"""Record what this version of Holdfast does, for the tests that guard it: ``tests/test_golden_*.py``.

    python scripts/make_golden.py lines        tests/golden/command_lines/    every option in every form, and what is
    refused
    python scripts/make_golden.py numbers      tests/golden/numbers/          summaries and rows of short runs
    python scripts/make_golden.py runs         tests/golden/runs/             a finished run directory of every command,
    an unfinished study

The data in the repository was recorded by commit 33c6712. Record anew only what has changed on purpose, and say so:
``lines NAME ..`` and ``numbers NAME ..`` record single files. The run directories stand for what users have on disk:
those of an old version are kept, those of a later one belong beside them.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "helpers")]  # this checkout, whatever is installed

PARTS = ("lines", "numbers", "runs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("names", nargs="*", help="only these")
    arguments = parser.parse_args()
    importlib.import_module(f"golden_{arguments.part}").record(set(arguments.names))


if __name__ == "__main__":
    main()
