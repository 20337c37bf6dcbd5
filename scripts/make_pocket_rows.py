"""Write the rows that the package ships: src/holdfast/pocket/rows/*.jsonl.gz, from the generators in scripts/pocket.

    python scripts/make_pocket_rows.py [--output FOLDER] [NAME ...]

A few seconds. The same code writes the same lines everywhere; the compressed bytes may differ with the zlib.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from pocket import splits
from pocket.corpus import corpus

HOME = Path(__file__).resolve().parents[1] / "src" / "holdfast" / "pocket" / "rows"
CORPUS_DOCUMENTS = 20_000

DATA_SETS: dict[str, Callable[[], Iterable[dict[str, Any]]]] = {
    "corpus": lambda: ({"text": text} for text in corpus(CORPUS_DOCUMENTS)),
    **{f"instructions-{split}": partial(splits.instructions, split) for split in ("train", "dev", "test")},
    "intents": splits.intents,
    "tasks": splits.tasks,
    **{f"preferences-{split}": partial(splits.preferences, split) for split in ("train", "dev", "test")},
}


def write_rows(folder: Path, name: str) -> Path:
    """One data set as gzipped JSON lines, with neither a time nor a file name in the header."""
    path = folder / f"{name}.jsonl.gz"
    with path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0) as packed:
        for row in DATA_SETS[name]():
            packed.write((json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n").encode())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DATA_SETS)}; default: all")
    parser.add_argument("--output", type=Path, default=HOME)
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in DATA_SETS]:
        parser.error(f"no data set is called {unknown[0]}; there are {', '.join(DATA_SETS)}")
    args.output.mkdir(parents=True, exist_ok=True)
    for name in args.names or DATA_SETS:
        path = write_rows(args.output, name)
        print(f"{path} {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
