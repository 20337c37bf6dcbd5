"""Scores per item that a trial left behind.

In: a trial's row and the study directory. Out: the score of every item of a split, in the order of the items, or None.
The row names an ``.npz`` per split, with one array per metric that has items.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.errors import HoldfastError


def item_values(row: dict[str, Any], split: str, metric: str, root: Path) -> npt.NDArray[np.float64] | None:
    """Scores per item, [I]; None where the trial kept none for this metric, or one of them is not a number.

    Raises:
        HoldfastError: the row names a file that is missing or broken.
    """
    name = (row.get("items") or {}).get(split)
    if not name:
        return None
    try:
        with np.load(root / name, allow_pickle=False) as arrays:
            values = np.asarray(arrays[metric], np.float64) if metric in arrays else None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise HoldfastError(
            f"trial {row['trial']}: cannot read its scores per item from {root / name}: {error}"
        ) from error
    return values if values is not None and np.isfinite(values).all() else None
