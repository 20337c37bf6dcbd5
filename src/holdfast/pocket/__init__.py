"""`pocket`: an embedded base model and its small world, for everything that must run with no network.

In: a name such as `pocket:instructions/test`. Out: rows; or the folder of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError

CORPUS_DOCUMENTS = 20_000


def model_path() -> Path:
    """The folder of the embedded model (config, weights, tokenizer)."""
    return Path(__file__).parent / "model"


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a named data set; `NAMES` are the names.

    Raises `HoldfastError` for a name that is not one of them.
    """
    if name not in _MAKERS:
        raise HoldfastError(f"no data set is called {name!r}", hint="use one of " + ", ".join(_MAKERS))
    return _MAKERS[name]()


# The generators are imported inside the functions, so that `import holdfast.pocket` stays instant.


def _corpus() -> list[dict[str, Any]]:
    from holdfast.pocket.corpus import corpus

    return [{"text": text} for text in corpus(CORPUS_DOCUMENTS)]


def _instructions(split: Any) -> Callable[[], list[dict[str, Any]]]:
    def make() -> list[dict[str, Any]]:
        from holdfast.pocket.splits import instructions

        return instructions(split)

    return make


def _intents() -> list[dict[str, Any]]:
    from holdfast.pocket.splits import intents

    return intents()


def _tasks() -> list[dict[str, Any]]:
    from holdfast.pocket.splits import tasks

    return tasks()


def _preferences(split: Any) -> Callable[[], list[dict[str, Any]]]:
    def make() -> list[dict[str, Any]]:
        from holdfast.pocket.splits import preferences

        return preferences(split)

    return make


_MAKERS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "pocket:corpus": _corpus,
    "pocket:instructions": _instructions("train"),
    "pocket:instructions/train": _instructions("train"),
    "pocket:instructions/dev": _instructions("dev"),
    "pocket:instructions/test": _instructions("test"),
    "pocket:intents": _intents,
    "pocket:tasks": _tasks,
    "pocket:preferences": _preferences("train"),
    "pocket:preferences/train": _preferences("train"),
    "pocket:preferences/dev": _preferences("dev"),
    "pocket:preferences/test": _preferences("test"),
}
NAMES: tuple[str, ...] = tuple(_MAKERS)
