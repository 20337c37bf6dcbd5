"""Prompt sets for measuring POSIX on dev and on test: from one source or two, never one prompt on both."""

from __future__ import annotations

from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.study.measures import Measure


def sets_file(measure: Measure, folder: Path, split: str) -> Path:
    """Where the prompt sets of a split are."""
    return (
        folder
        / f"sets-{str(measure.options.get('sets') or measure.options[split]).replace('/', '-').replace(':', '-')}-{split}.jsonl"
    )


def split_sets(measure: Measure, folder: Path) -> None:
    """Write the prompt sets of both splits: those named for each, or every other set of one source.

    Raises:
        HoldfastError: the source cannot be read, or has too few sets.
    """
    from holdfast.sensitivity.sets import load_sets, write_sets

    options = measure.options
    if "sets" in options:
        every = load_sets(options["sets"])
        if len(every) < 2:
            raise HoldfastError(f"measure: posix: {options['sets']} has one set, so dev and test cannot both have one")
        parts = {"dev": every[::2], "test": every[1::2]}
    else:
        parts = {split: load_sets(options[split]) for split in ("dev", "test")}
        shared = {v.prompt for s in parts["dev"] for v in s.variants} & {
            v.prompt for s in parts["test"] for v in s.variants
        }
        if shared:
            raise HoldfastError(
                f"measure: posix: dev and test share {len(shared)} prompts; the first: {sorted(shared)[0][:60]!r}"
            )
    for split, sets in parts.items():
        write_sets(sets_file(measure, folder, split), sets)
