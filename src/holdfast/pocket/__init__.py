"""`pocket`: a base model and rows of a small world that come with the package, for all that must run without network.

In: a name such as `pocket:instructions/test`. Out: its rows, or the folder of the model.

| name | rows | columns |
|---|---|---|
| `pocket:corpus` | 20,000 | `text` |
| `pocket:instructions` + split | 8,000, 600, 900 | `messages`, `task`, `wording`, `held_out_wording`, `meta` |
| `pocket:preferences` + split | 2,000, 200, 400 | `prompt`, `chosen`, `rejected`, `task`, `fault`, `meta` |
| `pocket:intents` | 120 x 8 | `set_id`, `variant_id`, `kind`, `seed`, `prompt`, `target`, `meta` |
| `pocket:tasks` | 16 | `name`, `definition`, `labels`, `cue`, `rows` of `fields`, `input`, `answer`, `split` |

A split is `/train`, `/dev` or `/test`; a name without one is that of the training rows.

`meta` holds the facts of its row, which is not for training:

- `task`, `wording` (its number), `held_out_wording`, `split`; `fields` (the item without its wording), `answer` (the
  right one), `labels` (the closed set of answers, or null).
- `alternatives` (test splits and intents): must-move edits. Three items of the task that differ from this one in one
  field and have *another* right answer: `edit` (its kind), `split` (of the edited item), `fields`, `prompt` (in this
  row's wording), `answer`.
- `wordings` (test splits, and the original of each intent): the same item, with the same answer, in every other wording
  (of an intent: in those that are in no row of the set): `wording`, `held_out_wording`, `prompt`.

A `prompt` there is the whole user message. `scripts/make_pocket_rows.py` of the repository wrote the rows.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError, from_json

_FILES = {
    "pocket:corpus": "corpus",
    "pocket:instructions": "instructions-train",
    "pocket:instructions/train": "instructions-train",
    "pocket:instructions/dev": "instructions-dev",
    "pocket:instructions/test": "instructions-test",
    "pocket:intents": "intents",
    "pocket:tasks": "tasks",
    "pocket:preferences": "preferences-train",
    "pocket:preferences/train": "preferences-train",
    "pocket:preferences/dev": "preferences-dev",
    "pocket:preferences/test": "preferences-test",
}
NAMES: tuple[str, ...] = tuple(_FILES)
META = "meta"
"""The column that holds the facts of a row."""


def model_path() -> Path:
    """Return the folder of the embedded model (config, weights, tokenizer)."""
    return Path(__file__).parent / "model"


def rows_path(name: str) -> Path:
    """Return the file of a named data set (gzipped JSON lines); `NAMES` are the names.

    Raises `HoldfastError` for a name that is not one of them.
    """
    if name not in _FILES:
        raise HoldfastError(f"no data set is called {name!r}", hint="use one of " + ", ".join(_FILES))
    return Path(__file__).parent / "rows" / f"{_FILES[name]}.jsonl.gz"


def rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of a named data set; `NAMES` are the names.

    Raises `HoldfastError` for a name that is not one of them, and where the installed file is missing or damaged.
    """
    path = rows_path(name)
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [from_json(line) for line in file]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise HoldfastError(
            f"{path}: the rows of {name} cannot be read ({error})", hint="the file came with holdfast; install it anew"
        ) from error
