"""The number that a response gives: "about 1,250 kg" is 1250, "1/2" and "50 %" are 0.5 and 50, "3 or 4" is none.

Read are signs, thousands (1,250 and 1 250 and 1.250,5), decimals, powers of ten (1.2e5, 3 x 10^4), fractions (also of
LaTeX), and words such as "3 million" and "seven". Dates, times and ranges are no numbers.
"""

from __future__ import annotations

import re
from fractions import Fraction

from holdfast.sensitivity.answers.text import CUE, LAST_WORD, plain, statements

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = dict(zip(f"{_UNITS} {_TENS}".split(), [*range(20), *range(20, 100, 10)]))
_LARGEST_POWER = 300
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_DIGITS = (
    r"\d{1,3}(?:[, ]\d{3})+(?:\.\d+)?(?!\d)|\d{1,3}(?:\.\d{3})+,\d+|\d{1,60},\d{1,2}(?![\d,])"
    r"|\d{1,60}(?:\.\d{1,60})?|\.\d{1,60}"
)
_WORD = rf"(?:{'|'.join(_WORDS)})(?:-(?:one|two|three|four|five|six|seven|eight|nine))?"
_NUMBER = re.compile(
    rf"""(?<![\w.,])(?P<sign>(?:(?<![\d)\w])|(?<=\s))[-+]\s?|\b(?:minus|negative)\s)?(?:[$\u20ac\u00a3\u00a5]\s?)?
        (?: (?P<whole>\d{{1,30}})\s(?P<over>\d{{1,30}})/(?P<under>\d{{1,30}})
          | (?P<top>\d{{1,30}})\s?/\s?(?P<bottom>\d{{1,30}})(?![\d/])
          | (?P<digits>{_DIGITS})(?:[eE](?P<exponent>[-+]?\d{{1,3}})(?!\w))?
              (?:\s?(?:[xX*\u00d7\u00b7]|\\times)\s?10\s?\^\s?\{{?(?P<power>[-+]?\d{{1,3}})\}}?)?
          | (?<![-])\b(?P<word>{_WORD})\b(?!-) )
        (?:\s(?P<scale>{"|".join(_SCALES)})\b)?(?![\d])""",
    re.VERBOSE | re.IGNORECASE,
)
_NO_NUMBER = re.compile(
    r"""\b\d{1,4}(?:[-/.]\d{1,2}){2,}(?:[-/]\d+)*\b(?!\d) | \b\d{1,2}:\d{2}(?::\d{2})?\b   # dates and times
      | (?m:^\s*(?:step\s)?\d{1,2}[.)]\s(?=\S))                      # numbers of a list
      | \b(?:step|part|option|question|case|example|figure|table|chapter|section|equation|line)\s\#?\d+\b""",
    re.VERBOSE | re.IGNORECASE,
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_RANGE = re.compile(
    r"^\s?(?:%|\w{1,12}\s)?\s?(?:-|\u2013|\u2014|\bto\b|\bor\b|\band\b|\btill\b|\buntil\b|~)\s?$", re.IGNORECASE
)
_BETWEEN = re.compile(r"\b(?:between|from|either)\s(?:about\s|roughly\s|around\s)?$", re.IGNORECASE)
_AROUND = re.compile(r"^\s?(?:\u00b1|\+/-|\+-|\\pm)\s?$")
_DENIED = re.compile(r"(?:\bnot\b|n't\b|\bnever\b|\brather\sthan\b|\binstead\sof\b)[^\d,:;]*$", re.IGNORECASE)


def number(response: str, question: str = "") -> str | None:
    """Return the number that a response gives, in decimal digits ("1250", "0.5"), or None for none or several.

    The last statement that claims to be the answer counts; else the only number; else the first, where the response
    begins with it.
    """
    text = plain(_FRACTION.sub(r"\1/\2", response).replace("{,}", ","), question)
    text = _NO_NUMBER.sub(lambda m: "\n" if m.group().strip()[-1:] in ".)" else " ", text)
    parts = statements(text)
    for final in (True, False):
        for part in reversed(parts):
            if LAST_WORD.search(part) if final else (CUE.search(part) or _alone(part)):
                values = _of_statement(part)
                if values:
                    return _text(values.pop()) if len(values) == 1 else None
    apart = [re.sub(r"(?<=\w)\s\([^()]*\)", "", part) for part in parts]  # "42 (6 times 7)"
    everything = [_of_statement(part) for part in apart]
    distinct = set().union(*everything)
    if len(distinct) == 1:
        return _text(distinct.pop())
    first = _NUMBER.match(text)
    return _text(everything[0].pop()) if first and len(everything[0]) == 1 else None


def _alone(statement: str) -> bool:
    """Whether a statement is a number and at most a few words that say of what, or ends with what it equals."""
    place = _NUMBER.search(statement)
    if place is None:
        return False
    words = len(re.findall(r"[^\W\d_]+", statement[: place.start()] + statement[place.end() :]))
    return (place.start() <= 2 and words <= 2) or re.search(r"=\s*[^=]*$", statement) is not None


def _of_statement(statement: str) -> set[Fraction]:
    """Return the numbers that a statement gives; two or more where it leaves the choice open."""
    cue = next(iter(reversed(list(CUE.finditer(statement)))), None)
    behind = statement[cue.end() :] if cue and _NUMBER.search(statement[cue.end() :]) else statement
    equals = behind.rpartition("=")[2]
    several = re.search(r"[,;]\s*[A-Za-z]\w*\s*=", behind)  # x = 5, y = 6
    behind = equals if _NUMBER.search(equals) and not several else behind
    values: list[Fraction] = []
    end = 0
    for place in _NUMBER.finditer(behind):
        between = behind[end : place.start()]
        value = _value(place)
        if value is None or (values and _AROUND.match(between)) or _DENIED.search(between):
            continue
        open_choice = (values and _RANGE.match(between)) or _BETWEEN.search(between)
        if cue and values and not open_choice and len(values) == 1:
            break  # "the answer is 18, which is 3 times 6"
        values.append(value)
        if _BETWEEN.search(between):
            values.append(value + 1)  # a bound, whatever the other one is
        end = place.end()
    return set(values)


def _value(place: re.Match[str]) -> Fraction | None:
    sign = -1 if (place["sign"] or "").lower().startswith(("-", "m", "n")) else 1
    power = int(place["exponent"] or place["power"] or 0)
    if abs(power) > _LARGEST_POWER:
        return None
    if place["whole"] or place["top"]:
        under = int(place["under"] or place["bottom"])
        if not under:
            return None
        value = Fraction(int(place["whole"] or 0)) + Fraction(int(place["over"] or place["top"]), under)
    elif place["word"]:
        tens, _, ones = place["word"].lower().partition("-")
        value = Fraction(_WORDS[tens] + _WORDS.get(ones, 0))
    else:
        value = Fraction(_in_digits(place["digits"])) * Fraction(10) ** power
    return sign * value * Fraction(10) ** _SCALES.get((place["scale"] or "").lower(), 0)


def _in_digits(digits: str) -> str:
    """Return digits with a point before the decimals and nothing between thousands."""
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+,\d+", digits):
        return digits.replace(".", "").replace(",", ".")
    if re.fullmatch(r"\d+,\d{1,2}", digits):
        return digits.replace(",", ".")
    return digits.replace(",", "").replace(" ", "")


def _text(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.12g}"
