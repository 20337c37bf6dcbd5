"""Ranges and types of options, and the options that every command takes."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import math
import operator
import typing
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from holdfast.errors import HoldfastError

Config = TypeVar("Config", bound="RunConfig")


@dataclass(frozen=True)
class Range:
    """The numbers that an option may have, beside its type: ``Annotated[float, Range(gt=0)]``. ``or_else`` is one more
    value that is allowed, for what ``meaning`` says.
    """

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    or_else: float | None = None
    meaning: str = ""

    def problem(self, value: float) -> str | None:
        """Return what the value must be, the bound that it breaks first; or None if it is in the range."""
        bounds = (
            (self.gt, operator.gt, "greater than"),
            (self.ge, operator.ge, "at least"),
            (self.lt, operator.lt, "less than"),
            (self.le, operator.le, "at most"),
        )
        broken: list[str] = []
        kept: list[str] = []
        for bound, holds, words in bounds:
            if bound is not None:
                (kept if holds(value, bound) else broken).append(f"{words} {bound}")
        if not broken or value == self.or_else:
            return None
        other = f"{self.or_else} ({self.meaning}) or " if self.or_else is not None else ""
        return other + " and ".join(broken + kept)


@functools.cache
def ranges_of(config_class: type) -> dict[str, Range]:
    """Return the range of every option that has one. A class that declares an option of its parent anew, with another
    default, keeps the range unless it states one.
    """
    ranges: dict[str, Range] = {}
    for base in reversed(config_class.__mro__):
        for name, annotation in typing.get_type_hints(base, include_extras=True).items():
            for extra in getattr(annotation, "__metadata__", ()):
                if isinstance(extra, Range):
                    ranges[name] = extra
    return ranges


def _check_date(text: str | None) -> None:
    if text is None:
        return
    try:
        datetime.datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        raise HoldfastError(f"--date {text}: not a day", hint="--date 2025-01-31") from None


class LeftOpen(int):
    """A default that a recipe fills in. It equals the number, and is told apart from one that was chosen."""


@dataclass(kw_only=True)
class RunConfig:
    """What every command takes."""

    recipes: ClassVar[dict[str, dict[str, Any]]] = {}
    """Value of ``recipe`` -> option -> what the paper uses: see ``with_recipe``."""
    output: str
    """Run directory to write: config.json, rows.jsonl, summary.json and the results."""
    limit: Annotated[int | None, Range(ge=1)] = None
    """Use only the first N rows of the data."""
    seed: Annotated[int, Range(ge=0, lt=2**32)] = 0
    """Seed of every random draw: the same config on the same machine gives the same numbers."""
    overwrite: bool = False
    """Delete the run in --output and start again."""
    dry_run: bool = False
    """Show the first item as the model will see it and what the run will cost. Writes nothing and loads no weights."""
    json: bool = False
    """Print the summary as JSON on stdout."""

    def __post_init__(self) -> None:
        """Every number is finite and in its range, whether it comes from a flag, a YAML file or Python."""
        ranges = ranges_of(type(self))  # type: ignore[arg-type]  # a class is hashable
        for name, value in vars(self).items():
            if not isinstance(value, int | float):
                continue
            finite = math.isfinite(value)
            problem = ranges.get(name, Range()).problem(value) if finite else "a finite number"
            if problem:
                raise HoldfastError(f"--{name.replace('_', '-')} is {value}; it must be {problem}")
        _check_date(getattr(self, "date", None))


def with_recipe(config: Config) -> Config:
    """Return the config with the values of its ``recipe`` for the options that are left open (None or ``LeftOpen``).
    A value that was chosen wins, also one that equals the default.
    """
    recipe = type(config).recipes.get(str(getattr(config, "recipe", None)), {})
    return dataclasses.replace(config, **{k: v for k, v in recipe.items() if is_open(getattr(config, k))})


def is_open(value: Any) -> bool:
    """Return whether an option has been left to a recipe or to a default that other options decide on."""
    return value is None or isinstance(value, LeftOpen)


def check_value(config_class: type, name: str, value: Any, place: str) -> Any:
    """Return a value of a YAML file, or of a keyword, as the type of its option. YAML reads 2e-5 as text.

    Raises:
        HoldfastError: ``place`` and the field are named.
    """
    from typeguard import TypeCheckError, check_type

    wanted = typing.get_type_hints(config_class)[name]
    if wanted == dict[str, str] and isinstance(value, dict):
        return {str(key): str(item) for key, item in value.items()}
    attempts = [value]
    if isinstance(value, str | int) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            attempts.append(float(value))
    for attempt in attempts:
        try:
            return check_type(attempt, wanted)
        except TypeCheckError:
            continue
    table = typing.get_origin(wanted) is dict and isinstance(value, list)
    hint = f"below '{name}:' belong indented lines 'name: value', without '- '" if table else None
    raise HoldfastError(
        f"{place}: '{name}' is {value!r}, which is not of type {getattr(wanted, '__name__', wanted)}", hint=hint
    )
