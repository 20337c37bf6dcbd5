"""The number that a response gives: "about 1,250 kg" is 1250, "1/2" and "50 %" are 0.5 and 50, "3 or 4" is none.

Read are signs, thousands (1,250 and 1 250 and 1.250,5), decimals, powers of ten (1.2e5, 3 x 10^4), fractions (also of
LaTeX), and words such as "3 million" and "seven". Dates, times and ranges are no numbers.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from decimal import Decimal
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
    r"\d{1,3}(?:[, '_]\d{3})+(?:\.\d+)?(?!\d)|\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}(?![\d.])"
    r"|\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?(?![\d,])|\d{1,60},\d{1,2}(?![\d,])"
    r"|\d{1,60}(?:\.\d{1,60})?|\.\d{1,60}"
)
_WORD = rf"(?:{'|'.join(_WORDS)})(?:-(?:one|two|three|four|five|six|seven|eight|nine))?"
_NUMBER = re.compile(
    rf"""(?<![\w.,^])(?P<sign>(?:(?<![\d)\w])|(?<=\s))[-+]\s?|\b(?:minus|negative)\s)?(?:[$\u20ac\u00a3\u00a5]\s?)?
        (?: (?P<whole>\d{{1,30}})\s(?P<over>\d{{1,30}})/(?P<under>\d{{1,30}})
          | (?P<top>\d{{1,30}})\s?/\s?(?P<bottom>\d{{1,30}})(?![\d/])
          | (?P<digits>{_DIGITS})(?:[eE](?P<exponent>[-+]?\d{{1,3}})(?!\w))?
              (?:\s?(?:[xX*\u00d7\u00b7]|\\times)\s?10\s?\^\s?\{{?(?P<power>[-+]?\d{{1,3}})\}}?)?
          | (?<![-])\b(?P<word>{_WORD})\b(?!-) )
        (?:\s(?P<scale>{"|".join(_SCALES)})\b)?(?!\d|\s?\^|x[\da-f])""",
    re.VERBOSE | re.IGNORECASE,
)
_NO_NUMBER = re.compile(
    r"""\b(?!\d{1,3}(?:\.\d{3})+(?![\d.]))\d+(?:\.\d+){2,}\b                 # versions and addresses
      | \b(?!\d{1,3}(?:\.\d{3})+(?![\d.]))\d{1,4}(?:[-/.]\d{1,2}){2,}(?:[-/]\d+)*\b(?!\d)
      | \b\d{1,2}:\d{2}(?::\d{2})?\b                                # dates and times
      | (?m:^\s*(?:step\s)?\d{1,2}[.)]\s(?=\S))                      # numbers of a list
      | \b(?:step|part|option|question|case|example|figure|table|chapter|section|equation|line)\s\#?\d+\b""",
    re.VERBOSE | re.IGNORECASE,
)
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s?(\d))")
_PARTS = {
    "half": 2,
    "halve": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "eighth": 8,
    "tenth": 10,
}
_COUNTS = "one|two|three|four|five|six|seven|eight|nine|ten"
_WORD_FRACTION = re.compile(rf"\b({_COUNTS})[\s-]({'|'.join(_PARTS)})s?\b", re.IGNORECASE)
_BELOW_HUNDRED = (
    rf"(?:(?:{_TENS.replace(' ', '|')})(?:[\s-](?:{_COUNTS.removesuffix('|ten')}))?|{_UNITS.replace(' ', '|')})"
)
_BELOW_THOUSAND = rf"(?:(?:{_BELOW_HUNDRED}|a)\shundred(?:\s(?:and\s)?{_BELOW_HUNDRED})?|{_BELOW_HUNDRED})"
_SCALED = rf"(?:{_BELOW_THOUSAND}|a)\s(?:thousand|million|billion|trillion)"
_WRITTEN = re.compile(
    rf"\b(?:{_SCALED}(?:,?\s(?:and\s)?{_SCALED})*(?:,?\s(?:and\s)?{_BELOW_THOUSAND})?|(?:a|{_COUNTS})\sdozen"
    rf"|{_BELOW_THOUSAND})\b",
    re.IGNORECASE,
)
"""A number in words, such as "three thousand five hundred"."""
_OPERATOR = r"(?:[-+*/\u00b7\u00d7\u00f7x]|\b(?:plus|minus|times|divided\sby|multiplied\sby)\b)"
_SUM = re.compile(rf"(\d\s?{_OPERATOR}\s?\d[\d\s.+*/\u00d7\u00f7x-]*?)\s?\b(?:is|equals?|makes|gives)\s(?=\W*\d)", re.I)
"""A calculation whose result follows."""
_TOTAL = re.compile(
    r"^\W*(?:together|altogether|in\s(?:total|all)|total|sum)\b[^.=\d]{0,20}?(?=\W*\d)"
    r"|\b(?:sum|total|difference|product|average|mean|quotient|remainder)\b[^.=]{0,60}\b(?:is|was|equals)\s(?=\W*\d)",
    re.IGNORECASE,
)
"""Words after which a statement gives a result."""
_JOINS = re.compile(rf"^\s?{_OPERATOR}\s?$", re.IGNORECASE)
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
    text = _FRACTION.sub(lambda m: f"{m[1] or m[3]}/{m[2] or m[4]}", response).replace("{,}", ",")
    text = _in_figures(plain(text, question))
    text = _NO_NUMBER.sub(lambda m: "\n" if m.group().strip()[-1:] in ".)" else " ", text)
    parts = list(map(_without_asides, statements(text)))
    parts = [part for part in parts if not part.rstrip().endswith("?")] or parts
    for final in (True, False):
        for part in reversed(parts):
            if LAST_WORD.search(part) if final else (CUE.search(part) or _TOTAL.search(part) or _alone(part)):
                values = _of_statement(part)
                if values:
                    return _text(values.pop()) if len(values) == 1 else None
    everything = list(map(_of_statement, parts))
    distinct = set().union(*everything)
    if len(distinct) == 1:
        return _text(distinct.pop())
    first = _NUMBER.match(text)
    return _text(everything[0].pop()) if first and len(everything[0]) == 1 else None


def _in_figures(text: str) -> str:
    """Return a text with numbers in words, thousands as "3k" and "i.e." in signs."""
    text = _WORD_FRACTION.sub(lambda m: f"{_WORDS[m[1].lower()]}/{_PARTS[m[2].lower()]}", text)
    text = _WRITTEN.sub(lambda m: str(_of_words(m.group())) if " " in m.group() else m.group(), text)
    text = re.sub(r"(?<=\d)k\b", " thousand", re.sub(r"\\(?:times|cdot)\b", "\u00d7", text))
    text = re.sub(r",?\s\(?i\.e\.,?\s", " = ", text).replace(";", ",")
    return _SUM.sub(r"\1 = ", text)


def _of_words(words: str) -> int:
    total = group = 0
    for word in re.findall(r"[a-z]+", words.lower()):
        if word == "dozen":
            return (group or 1) * 12
        if word == "hundred":
            group = (group or 1) * 100
        elif word in _SCALES:
            total, group = total + (group or 1) * 10 ** _SCALES[word], 0
        else:
            group += _WORDS.get(word, 0)  # "a" and "and" add nothing
    return total + group


def _without_asides(statement: str) -> str:
    """Return a statement without its reasons, and what stands in brackets behind a word: "42 (6 times 7)"."""
    without = re.sub(r"(?<=\w)\s\([^()]*\)|,?\s(?:because|since)\b.*", "", statement)
    return without if _NUMBER.search(without) else statement


def _alone(statement: str) -> bool:
    """Whether a statement is a number and at most a few words that say of what, or ends with what it equals."""
    place = _NUMBER.search(statement)
    if place is None:
        return False
    words = len(re.findall(r"[^\W\d_]+", statement[: place.start()] + statement[place.end() :]))
    return (place.start() <= 2 and words <= 2) or re.search(r"=\s*[^=]*$", statement) is not None


def _of_statement(statement: str) -> set[Fraction]:
    """Return the numbers that a statement gives; two or more where it leaves the choice open."""
    cue = next(iter(reversed(list(CUE.finditer(statement)))), None) or _TOTAL.search(statement)
    behind = statement[cue.end() :] if cue and _NUMBER.search(statement[cue.end() :]) else statement
    several = re.search(r"[,;]\s*[A-Za-z]\w*\s*=", behind)  # x = 5, y = 6
    return _of_text(behind, bool(cue)) if several else _of_sides(behind.split("="), bool(cue))


def _of_sides(sides: Sequence[str], is_claimed: bool) -> set[Fraction]:
    """Return the numbers of the last side of an equation that is no calculation; of all sides, where each is a number
    ("5 km = 5000 m").
    """
    numbers = [side for side in sides if _NUMBER.search(side)]
    results = [side for side in numbers if not _calculates(side)]
    if not results:
        return _of_text(numbers[-1], is_claimed) if numbers else set()
    starts = len(numbers) == len(sides) and _NUMBER.match(sides[0].strip())
    if len(results) == len(sides) > 1 and starts:
        return set(itertools.chain.from_iterable(_of_text(side, is_claimed) for side in sides))
    return _of_text(results[-1], is_claimed)


def _calculates(text: str) -> bool:
    places = list(_NUMBER.finditer(text))
    return any(_joined(text, one, other) for one, other in itertools.pairwise(places))


def _joined(text: str, one: re.Match[str], other: re.Match[str]) -> bool:
    """Whether two numbers are parts of a calculation: an operator stands between them, or the sign of the second."""
    between = text[one.end() : other.start()]
    return _JOINS.match(between) is not None or (bool(other["sign"]) and not between.strip())


def _of_text(behind: str, cue: bool) -> set[Fraction]:
    values: list[Fraction] = []
    last: re.Match[str] | None = None
    for place in _NUMBER.finditer(behind):
        between = behind[last.end() if last else 0 : place.start()]
        value = _value(place)
        if value is None or (values and _AROUND.match(between)) or _DENIED.search(between):
            continue
        open_choice = (
            values and (_RANGE.match(between) or (last and _joined(behind, last, place)))
        ) or _BETWEEN.search(between)
        if open_choice and value in values:
            values.append(value + 1)  # "2 + 2" is no number
        if cue and values and not open_choice and len(values) == 1:
            break  # "the answer is 18, which is 3 times 6"
        values.append(value)
        if _BETWEEN.search(between):
            values.append(value + 1)  # a bound, whatever the other one is
        last = place
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
    if re.fullmatch(r"\d{1,3}(?:\.\d{3}){2,}", digits):
        return digits.replace(".", "")
    return re.sub(r"[, '_]", "", digits)


def _text(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{Decimal(f'{float(value):.12g}'):f}"
