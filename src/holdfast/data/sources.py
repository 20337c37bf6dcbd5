"""What a data source stands for: files of a folder or of a glob, the splits of a data set, several sources at once.

data.jsonl                      a file, packed or not
folder/                         a saved data set, or the files in it
'part-*.jsonl'                  a glob
SOURCE:SPLIT                    one split of a data set, saved or of the hub, or of a folder whose files are named
                                for their splits (train.jsonl, test-00000-of-00001.parquet)
a.jsonl b.parquet               several, each read for itself; --data-share says how many rows of each are drawn
"""

from __future__ import annotations

import glob
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from holdfast.data.files import KINDS, kind_of, say
from holdfast.errors import HoldfastError, from_json

T = TypeVar("T")
HELD_OUT = ("validation", "valid", "val", "dev", "eval", "evaluation", "test")
"""Names of splits that are held out, the first that is there."""
_SAVED = ("state.json", "dataset_info.json", "dataset_dict.json")


def sources_of(data: str | Sequence[str]) -> list[str]:
    """Return the sources of an option that takes one or several."""
    return [data] if isinstance(data, str) else list(data)


def name_of(data: str | Sequence[str]) -> str:
    """Return how messages and summaries name the data."""
    return ", ".join(sources_of(data))


def files_of(source: str) -> list[str]:
    """Return the single sources that a source stands for: the files of a glob or a folder, else itself.

    Of a folder whose files are named for splits, those that are not held out (``tell_unread`` names the others).

    Raises:
        HoldfastError: a glob that fits no file, a folder without data files, or a split that a folder does not have.
    """
    path = Path(source)
    if path.is_dir() and not is_saved(path):
        return list(map(str, _splits_of_folder(path)["train"]))
    folder, _, split = source.rpartition(":")
    if folder and not path.exists() and Path(folder).is_dir() and not is_saved(Path(folder)):
        splits = _splits_of_folder(Path(folder))
        if split not in splits:
            raise HoldfastError(f"{folder}: no split '{split}'; its files are of {', '.join(splits)}")
        return list(map(str, splits[split]))
    if path.exists() or not glob.has_magic(source):
        return [source]
    files = sorted(name for name in glob.glob(source, recursive=True) if Path(name).is_file())
    if not files:
        raise HoldfastError(f"{source}: no file fits", hint="paths are relative to the current directory")
    return files


def tell_unread(source: str, used: str | None = None) -> None:
    """Say which files of a folder are not read, for their kind or as those of a split; ``used`` is a split that is."""
    folder = Path(source)
    if not folder.is_dir() or is_saved(folder):
        return
    unread = [file for file in _files_in(folder) if kind_of(file) not in KINDS]
    splits = _splits_of_folder(folder)
    unread += [file for name in splits if name not in ("train", used) for file in splits[name]]
    if unread:
        names = [str(file.relative_to(folder)) for file in unread]
        say(f"{source}: not read: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}")


def is_saved(folder: Path) -> bool:
    """Return whether a folder is one of ``Dataset.save_to_disk``, or what is left of it."""
    return any((folder / name).exists() for name in _SAVED) or any(folder.glob("*.arrow"))


def split_names(source: str) -> list[str] | None:
    """Return the names of the splits of a folder or a saved data set, none for what has none; None where only the hub
    can know.
    """
    path = Path(source)
    if path.is_dir():
        if not is_saved(path):
            return list(_splits_of_folder(path))
        listed = path / "dataset_dict.json"
        try:
            return list(from_json(listed.read_text(encoding="utf-8"))["splits"]) if listed.exists() else []
        except (OSError, ValueError, KeyError, TypeError):  # reading it will say what is wrong
            return []
    is_file = path.exists() or kind_of(path) in KINDS or source[:1] in (".", "/", "~")
    return [] if is_file or ":" in source or glob.has_magic(source) else None


def _splits_of_folder(folder: Path) -> dict[str, list[Path]]:
    """Return the data files of a folder and of those in it by split, ``train`` first: what no name holds out."""
    splits: dict[str, list[Path]] = {"train": []}
    for file in _files_in(folder):
        if kind_of(file) in KINDS:
            words = re.split(r"[\W_]+", str(file.relative_to(folder)).lower())
            splits.setdefault(next((name for name in HELD_OUT if name in words), "train"), []).append(file)
    if not any(splits.values()):
        raise HoldfastError(
            f"{folder}: not a saved dataset folder, or not a whole one, and without data files",
            hint=f"make one with Dataset.save_to_disk, or put files in it ({', '.join(KINDS)})",
        )
    if not splits["train"]:  # a folder of one split alone is that split's
        return {"train": [file for part in splits.values() for file in part]}
    return splits


def _files_in(folder: Path) -> list[Path]:
    """Return the files below a folder, in the order of their names, without hidden ones."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(f for f in files if not any(part.startswith((".", "_")) for part in f.relative_to(folder).parts))


def shares_of(text: str | None, sources: Sequence[str]) -> list[float] | None:
    """Return the shares that ``--data-share`` gives, one for each source.

    Raises:
        HoldfastError: not as many numbers greater than 0 as there are sources.
    """
    if text is None:
        return None
    try:
        shares = [float(share) for share in str(text).split(",")]
    except ValueError:
        shares = []
    if len(shares) != len(sources) or not all(0 < share < float("inf") for share in shares):
        raise HoldfastError(
            f"--data-share {text}: it must be {len(sources)} numbers greater than 0, one for each --data",
            hint="--data a.jsonl b.jsonl --data-share 2,1",
        )
    return shares


def sizes_of(rows: Sequence[int], shares: Sequence[float]) -> list[int]:
    """Return how many items an epoch has of each part, of the number in each and its share: the part that is small for
    its share is there whole.

    >>> sizes_of([10, 3], [2, 1])
    [6, 3]
    """
    unit = min((count / share for count, share in zip(rows, shares, strict=True) if count), default=0.0)
    return [min(count, max(1, int(unit * share + 1e-9))) for count, share in zip(rows, shares, strict=True)]


def draw(parts: Sequence[list[T]], shares: Sequence[float] | None, seed: int, epochs: int = 1) -> list[list[T]]:
    """Return of each part as many items as so many epochs have by its share, drawn with the seed, in their order.

    No item is drawn twice.

    >>> [len(part) for part in draw([[1] * 10, [2] * 3], [2, 1], seed=0)]
    [6, 3]
    """
    if shares is None:
        return list(parts)
    drawn: list[list[T]] = []
    for number, (part, size) in enumerate(zip(parts, sizes_of([*map(len, parts)], shares), strict=True)):
        count = min(len(part), epochs * size)
        places = sorted(random.Random(f"{seed} {number}").sample(range(len(part)), count))
        drawn.append([part[place] for place in places])
    return drawn


def draw_epochs(rows: Sequence[int], shares: Sequence[float], seed: int, epochs: int) -> list[list[int]]:
    """Return the items of each epoch, as places in the parts laid end to end; ``rows`` is the number in each part.

    An epoch has no item twice. Over the epochs each item of a part has its turn before one comes again. The items of an
    epoch depend on the seed and on its number alone, not on how many epochs there are.
    """
    starts = itertools.accumulate(rows, initial=0)
    sizes = sizes_of(rows, shares)
    drawn: list[list[int]] = [[] for _ in range(epochs)]
    for number, (start, count, size) in enumerate(zip(starts, rows, sizes)):
        for epoch, places in zip(drawn, _in_turn(count, size, f"{seed} {number} epochs")):
            epoch += [start + place for place in places]
    return drawn


def _in_turn(count: int, size: int, seed: str) -> Iterator[list[int]]:
    """Draw ``size`` of ``count`` places again and again, none twice at a time, and none again before all had a turn."""
    generator, waiting = random.Random(seed), list[int]()
    while True:
        drawn, waiting = waiting[:size], waiting[size:]
        if len(drawn) < size:
            lap = generator.sample(range(count), count)
            there = {*drawn}
            drawn += [place for place in lap if place not in there][: size - len(drawn)]
            taken = {*drawn} - there
            waiting = [place for place in lap if place not in taken]
        yield sorted(drawn)
