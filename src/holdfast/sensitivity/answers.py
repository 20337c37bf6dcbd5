"""Responses -> answers that can be compared between variants. A rule is a key of ``RULES``.

In: the text of a response and the variant that it answers. Out: an answer (the text of an option, because the order of
options changes), or None for a response that gives none.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from holdfast.errors import HoldfastError
from holdfast.sensitivity.sets import Variant

Rule = Callable[[str, Variant], str | None]


def first_line(text: str, variant: Variant) -> str | None:
    """Return the first line that is not empty, in lower case and without marks around it."""
    return next(filter(None, map(_clean, text.splitlines())), None)


def option(text: str, variant: Variant) -> str | None:
    """Return the text of the option that the response names: by its letter at the start, else by its text."""
    options = {letter: _clean(text) for letter, text in (variant.meta.get("options") or {}).items()}
    letter = re.match(r"\s*[\[(<]?\s*([A-Za-z])\b", text)
    if letter and letter.group(1).upper() in options:
        return options[letter.group(1).upper()]
    line = first_line(text, variant) or ""
    return next((option for option in options.values() if option and line.startswith(option)), None)


def automatic(text: str, variant: Variant) -> str | None:
    """Return what ``option`` returns where the variant lists options, else what ``first-line`` returns."""
    return option(text, variant) if variant.meta.get("options") else first_line(text, variant)


RULES: dict[str, Rule] = {"auto": automatic, "first-line": first_line, "option": option}


def rule(name: str) -> Rule:
    """Return the rule of this name.

    Raises:
        HoldfastError: an unknown name.
    """
    if name not in RULES:
        raise HoldfastError(f"unknown answer rule '{name}'; known: {', '.join(RULES)}")
    return RULES[name]


def gold(variant: Variant) -> str | None:
    """Return the right answer in the form that the rules give, or None without a target."""
    if variant.target is None:
        return None
    options: dict[str, str] = variant.meta.get("options") or {}
    return _clean(options.get(variant.target, variant.target))


def _clean(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip(" \t\r\n.,;:!?\"'`*()[]").lower()
