"""Responses -> answers: what a response says, and whether that is right. A rule is a key of ``RULES``.

In: the text of a response and the variant it answers. Out: an answer that can be compared between variants (the
option's text, where the order of options changes), or None for a response that gives none.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from holdfast.errors import HoldfastError
from holdfast.sensitivity.sets import Variant

Rule = Callable[[str, Variant], str | None]


def first_line(text: str, variant: Variant) -> str | None:
    """The first line that is not empty, lower case, without marks around it."""
    for line in text.splitlines():
        if cleaned := _clean(line):
            return cleaned
    return None


def option(text: str, variant: Variant) -> str | None:
    """The text of the option that the response names: by its letter at the start, else by its text."""
    options: dict[str, str] = variant.meta.get("options") or {}
    letter = re.match(r"\s*[\[(<]?\s*([A-Za-z])\b", text)
    if letter and letter.group(1).upper() in options:
        return _clean(options[letter.group(1).upper()])
    line = first_line(text, variant) or ""
    return next((_clean(o) for o in options.values() if _clean(o) and line.startswith(_clean(o))), None)


def automatic(text: str, variant: Variant) -> str | None:
    """``option`` where the variant lists options, else ``first-line``."""
    return option(text, variant) if variant.meta.get("options") else first_line(text, variant)


RULES: dict[str, Rule] = {"auto": automatic, "first-line": first_line, "option": option}


def rule(name: str) -> Rule:
    """The rule of this name.

    Raises:
        HoldfastError: an unknown name.
    """
    if name not in RULES:
        raise HoldfastError(f"unknown answer rule '{name}'; known: {', '.join(RULES)}")
    return RULES[name]


def gold(variant: Variant) -> str | None:
    """The right answer, in the form that the rules give; None without a target."""
    if variant.target is None:
        return None
    options: dict[str, str] = variant.meta.get("options") or {}
    return _clean(options.get(variant.target, variant.target))


def _clean(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip(" \t\r\n.,;:!?\"'`*()[]").lower()
