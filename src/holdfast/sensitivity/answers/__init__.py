"""Responses -> answers that can be compared between variants. A rule has a name: see ``rule``.

In: the text of a response and the variant that it answers. Out: an answer (the text of an option, because the order of
options changes), or None for a response that gives none.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.chat import without_thoughts
from holdfast.errors import HoldfastError, nearest
from holdfast.sensitivity.answers.numbers import number
from holdfast.sensitivity.answers.option import chosen, listed, values_of
from holdfast.sensitivity.answers.text import clean, normal, without_marks
from holdfast.sensitivity.answers.yes_no import yes_no
from holdfast.sensitivity.sets import PromptSet, Variant

Rule = Callable[[str, Variant], str | None]
_AROUND_LINE = re.compile(r"^\s*#{1,6}\s|\s[-\u2013\u2014]+\s*$")
"""A heading's mark, and a dash at the end."""
_MOST_BRACES = 200
"""Places at which a JSON object may begin that are tried: a response of braces alone would take for ever."""


def first_line(text: str, variant: Variant) -> str | None:
    """Return the first line that is not empty, in lower case and without marks of type and those around it."""
    lines = without_marks(normal(without_thoughts(text, variant.prompt)[0])).splitlines()
    return next(filter(None, (clean(_AROUND_LINE.sub("", line)) for line in lines)), None)


def option(text: str, variant: Variant) -> str | None:
    """Return the text of the option that the response names, by its letter or its text."""
    options = options_of(variant)
    letter = chosen(text, options, variant.prompt) if options else None
    return None if letter is None else values_of(options)[letter]


def automatic(text: str, variant: Variant) -> str | None:
    """Return what ``option`` returns where the variant lists options, else what ``first-line`` returns."""
    return option(text, variant) if variant.meta.get("options") else first_line(text, variant)


def _number(text: str, variant: Variant) -> str | None:
    return number(text, variant.prompt)


def _yes_no(text: str, variant: Variant) -> str | None:
    return yes_no(text, variant.prompt)


RULES: dict[str, Rule] = {
    "auto": automatic,
    "first-line": first_line,
    "option": option,
    "yes-no": _yes_no,
    "number": _number,
}
FORMS = ("json:FIELD", "regex:PATTERN", "module:function")
"""Rules that are given more than a name."""


def options_of(variant: Variant) -> dict[str, str]:
    """Return the options of a variant, letter -> text: those of its row, else those that its prompt lists."""
    return _of_row(variant) or listed(variant.prompt)


def _of_row(variant: Variant) -> dict[str, str]:
    options = variant.meta.get("options")
    return {str(letter): str(text) for letter, text in options.items()} if isinstance(options, dict) else {}


def rule(name: str) -> Rule:
    """Return the rule of this name: a key of ``RULES``, ``json:FIELD``, ``regex:PATTERN`` or ``module:function``.

    Raises:
        HoldfastError: an unknown name, a pattern that is none, or a function that cannot be imported.
    """
    if name in RULES:
        return RULES[name]
    form, colon, rest = name.partition(":")
    if not colon or not rest:
        raise HoldfastError(
            f"unknown answer rule '{name}'; known: {', '.join([*RULES, *FORMS])}", hint=nearest(name, list(RULES))
        )
    if form == "json":
        return lambda text, variant: _field(without_thoughts(text, variant.prompt)[0], rest)
    return _by_pattern(rest) if form == "regex" else _by_function(form, rest)


def check(name: str, sets: Sequence[PromptSet]) -> None:
    """Refuse the rule ``option`` for prompts of which none has options.

    Raises:
        HoldfastError: so it is.
    """
    if name == "option" and not any(options_of(v) for s in sets for v in s.variants):
        raise HoldfastError(
            "--answers option: no prompt has options, in its row (meta.options, choices) or in its text",
            hint="list them as (A) red (B) blue, or take another rule",
        )


def gold(variant: Variant, by: Rule = automatic) -> str | None:
    """Return the right answer in the form that the rule ``by`` gives, or None without a target."""
    if variant.target is None:
        return None
    options = options_of(variant) if by is option else _of_row(variant)
    if by in (option, automatic) and variant.target in options:
        return values_of(options)[variant.target]
    text = options.get(variant.target, variant.target)
    return by(text, variant) or clean(text)


def _by_pattern(pattern: str) -> Rule:
    """Return the rule that reads the last match: its group ``answer``, else its first group that took part, or all."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise HoldfastError(f"--answers regex:{pattern}: no regular expression ({error})") from error
    names = ["answer"] if "answer" in compiled.groupindex else range(1, compiled.groups + 1)

    def read(text: str, variant: Variant) -> str | None:
        for match in reversed(list(compiled.finditer(without_thoughts(text, variant.prompt)[0]))):
            groups = [match.group(name) for name in names] or [match.group()]
            if taken := [group for group in groups if group is not None]:
                return clean(taken[0]) or None
        return None

    return read


def _by_function(module: str, name: str) -> Rule:
    try:
        function: Callable[[str, Variant], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise HoldfastError(
            f"--answers {module}:{name}: {error}", hint="a rule is a function (response, variant) -> answer or None"
        ) from error
    if not callable(function):
        raise HoldfastError(f"--answers {module}:{name} is no function but {type(function).__name__}")

    def read(text: str, variant: Variant) -> str | None:
        answer = function(text, variant)
        return None if answer is None else clean(str(answer)) or str(answer)

    return read


def _field(text: str, field: str) -> str | None:
    """Return a field ("a.b" for one of an object in it) of the last JSON object in a text that has it."""
    values = [_within(one, field) for one in _objects(text)]
    values = [value for value in values if value is not None]
    if not values:
        return None
    last = values[-1]
    if isinstance(last, str):
        return clean(last) or None
    if isinstance(last, bool) or not isinstance(last, int | float):
        return json.dumps(last, sort_keys=True, ensure_ascii=False)
    return number(str(last))


def _within(value: Any, field: str) -> Any:
    if isinstance(value, dict) and field in value:  # a key may have a dot in it
        return value[field]
    for key in field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _objects(text: str) -> list[Any]:
    """Return the JSON objects of a text, those in others left out, whatever stands around them."""
    decoder, objects = json.JSONDecoder(strict=False), list[Any]()
    at, tries = text.find("{"), 0
    while at >= 0 and tries < _MOST_BRACES:
        try:
            value, end = decoder.raw_decode(text, at)
            objects.append(value)
        except (ValueError, RecursionError):
            value, end = _loose_object(text, at)
            objects += [] if value is None else [value]
        at, tries = text.find("{", end), tries + 1
    return objects


def _loose_object(text: str, at: int) -> tuple[Any, int]:
    """Return an object that is nearly JSON (single quotation marks, a comma at the end), without others in it, and its
    end; None and the next place where it is none.
    """
    flat = re.compile(r"\{[^{}]{1,5000}\}").match(text, at)
    if flat is None:
        return None, at + 1
    straight = flat.group().translate(dict.fromkeys(map(ord, "\u201c\u201d"), '"'))
    for read in (json.JSONDecoder(strict=False).decode, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return read(straight), flat.end()
    return None, at + 1
