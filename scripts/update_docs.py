"""Run the blocks of README and docs, and write what they print now into the pages.

usage: python scripts/update_docs.py [--full] [--real-model] [--fill] [PAGE ...]     (default: all pages)

Outputs that still fit are left as they are; --fill writes the whole output under every command. Read the diff before
you commit it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "helpers")]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from docs_blocks import Page, blocks, differences, updated  # noqa: E402


def main(arguments: list[str]) -> None:
    kinds = {"run", "file"} | ({"run full"} if "--full" in arguments else set())
    real = os.environ.get("HOLDFAST_REAL_MODEL", "")
    if "--real-model" in arguments:
        if not real:
            sys.exit("HOLDFAST_REAL_MODEL names no folder")
        kinds.add("real-model")
    named = [Path(argument).resolve() for argument in arguments if not argument.startswith("--")]
    for page in named or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        with tempfile.TemporaryDirectory() as folder:
            if real:
                (Path(folder) / "SmolLM2-135M-Instruct").symlink_to(real)
            here, results = Page(Path(folder)), {}
            for block in blocks(page):
                if block.kind in kinds:
                    began = time.monotonic()
                    results[block.first] = here.run(block)
                    difference = differences(block, results[block.first])
                    verdict = "changed" if difference else "as shown"
                    print(f"{block.where}: {verdict}, {time.monotonic() - began:.0f} s", flush=True)
            page.write_text(updated(page, results, fill="--fill" in arguments), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
