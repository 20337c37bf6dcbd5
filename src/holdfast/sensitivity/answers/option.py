"""Which of the options a response names: by letter ("(B)", "option B", "B) blue") or by text ("It is blue.").

Every place that names an option is marked first, so that the statements around it are read in one form. A place counts
unless it is denied ("not A", "A is wrong"), asked or supposed ("if A ..."). Two options in one breath ("A or B") are no
answer. The letter A as an article and I as a pronoun name nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from holdfast.sensitivity.answers.text import CUE, LAST_WORD, clean, normal, plain, statements

_LISTED = re.compile(r"(?m)(?:^|(?<=\s))[(\[]?([A-Z])[).:\]]\s*(\S.*?)\s*(?=$|\s(?:\([A-Z]\)|\[[A-Z]\]|[A-Z][).:]\s))")
_EDGE, _EDGE_AFTER = r"(?<![A-Za-z0-9]-)(?<![A-Za-z0-9\u00c0-\u024f'#])", r"(?![A-Za-z0-9\u00c0-\u024f+#]|'\w|[.-]\w)"
_FLAT = {
    "a",
    "an",
    "the",
    "it",
    "is",
    "i",
    "of",
    "in",
    "to",
    "and",
    "or",
    "not",
    "be",
    "as",
    "at",
    "on",
    "that",
    "this",
}
"""Words that name an option only where they stand alone, for they stand everywhere."""
_NO_LETTER_AFTER = re.compile(
    r"\b(?:vitamin|hepatitis|type|group|grade|class|section|plan|part|appendix|figure|table|team|blood|point|step)\s$",
    re.IGNORECASE,
)
_GOES_ON = (
    r"(?:is|was|or|and|nor|because|since|as|but|would|seems|looks|isn't|wasn't|are|has|with|vs|not|cannot|must"
    r"|should|I|through)\b"
)
_I_GOES_ON = r"(?:is|or|and|nor|because|isn't)\b"

_IS_ANSWER = r"\s(?:is|was)\s(?:the\s)?(?:\w+\s)?(?:answer|correct|right|best|choice|option)\b"
_NEAR = 200
"""Characters around a place that may deny it."""
_MARKED = re.compile(r"\x02(\d+)\x03")
_ONE = r"\x02\d+\x03"
_SAME = re.compile(r"\x02(\d+)\x03(?:[^\w\n\x02\x03]{1,4}\x02\1\x03)+")
"""An option by letter and text: "B) blue"."""
_DENIED_BEFORE = re.compile(
    rf"""(?:\bnot\b|n't\b|\bnever\b|\bneither\b|\bnor\b|\bcannot\b|\brules?\sout\b|\bruled\sout\b|\bruling\sout\b
          |(?<!no\s)(?<!out\s)(?<!out\sa\s)\bdoubt\w*|\bhardly\b|\bunlikely\b
          |\beliminat\w+|\bexclud\w+|\brather\sthan\b|\binstead\sof\b|\bexcept\b|\bunlike\b|\bincorrect\b|\bwrong\b
          |\bif\b|\bunless\b|\bwhether\b|\bsuppos\w+|\bassum\w+|\bdiscard\w*|\breject\w*|\bopposed\sto\b
          |\bno\s(?!doubt)|(?<!other\s)\bthan\b|\b(?:everything|anything|all)\sbut\b)
        [^\x02\x03,:;.!?]*(?:{_ONE}\W*(?:\s?(?:,|/|\bor\b|\band\b|\bnor\b)\s?(?:even\s|also\s|option\s)?)+)*$""",
    re.VERBOSE | re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"""[)\]"' ]*(?:(?:is|are|was|were|seems?|looks?|would\sbe|can|could|does|do|must|may)\s?)?
        (?:\w+ly\s|also\s|just\s)?
        (?:not\b(?!\sonly)|n't\b|cannot\b|isn't\b|aren't\b|wasn't\b|can't\b|doesn't\b|wrong\b|incorrect\b|false\b
          |impossible\b|ruled\sout\b|out\b|unlikely\b)
        |[\s:=(-]+(?:false|no|incorrect|wrong)\W*$""",
    re.VERBOSE | re.IGNORECASE,
)
_AND_ANOTHER = re.compile(
    rf"""\W*\s?(?:\s(?:or|and|nor|vs|through)\s|[/&|])\s?
         (?:(?:maybe|possibly|perhaps|even|also|either|option|both|the)\s)*\W?{_ONE}
       | \W*,\s?(?:maybe\s|possibly\s|perhaps\s)?{_ONE}\W*(?:,|\b(?:or|and)\b|$)""",
    re.VERBOSE | re.IGNORECASE,
)
_PRAISED = re.compile(
    r"\W*\s?(?:is|was|are|seems?|looks?|would\sbe|must\sbe|appears?|should\sbe|as)\b[^\x02\x03]*"
    r"\b(?:answers?|correct|right|best|better|choice|true)\b",
    re.IGNORECASE,
)
_BARE = re.compile(rf"^(?:\W|\b(?:options?|choice|answer|letter|is|the|an?)\b|{_ONE})*$", re.IGNORECASE)
_TICKED = (
    (re.compile(rf"(?m)({_ONE})[\s:)]*[\u2713\u2714\u2705]\ufe0f?\s*$"), r"\1 yes"),
    (re.compile(rf"(?m)({_ONE})[\s:)]*[\u2717\u2718\u2715\u2716\u274c\u274e]\ufe0f?\s*$"), r"\1 no"),
    (re.compile(rf"(?m)^[\u2717\u2718\u2715\u2716\u274c\u274e]\ufe0f?\s*({_ONE})"), r"\1 no"),
)
"""Options with a tick or a cross."""
_CALLED = re.compile(r"\b(?:answer|choice)\b", re.IGNORECASE)
_LEADS = re.compile(
    rf"^\W*(?:(?:option|choice|answer)\s)?{_ONE}(?:\s?[).:,;\]!-]+(?:\s|$)|\s(?:because|since|as)\b|\W*$)", re.I
)


def listed(prompt: str) -> dict[str, str]:
    """Return the options that a prompt lists as "(A) red (B) blue" or line by line, or none.

    The letters must follow each other from A; of several lists the last counts, since exemplars stand in front.
    """
    options: dict[str, str] = {}
    for match in _LISTED.finditer(prompt):
        letter, text = match.groups()
        if letter == "A":
            options = {"A": text}
        elif options and ord(letter) == ord("A") + len(options):
            options[letter] = text
    return options if len(options) > 1 else {}


def values_of(options: Mapping[str, str]) -> dict[str, str]:
    """Return letter -> answer: the option's text, cleaned unless that makes it empty or equal to another."""
    cleaned = {letter: clean(str(text)) for letter, text in options.items()}
    texts = list(cleaned.values())
    raw = {letter: str(text).strip() for letter, text in options.items()}
    same = {letter: list(raw.values()).count(text) > 1 for letter, text in raw.items()}
    return {
        letter: text if text and (texts.count(text) == 1 or same[letter]) else raw[letter]
        for letter, text in cleaned.items()
    }


def chosen(response: str, options: Mapping[str, str], question: str = "") -> str | None:
    """Return the letter of the option that a response names, or None where it names none, or several."""
    marked = _marks(plain(response, question), options)
    for pattern, said in _TICKED:
        marked = pattern.sub(said, marked)
    letters = list(options)
    values = values_of(options)
    number = _decided(_without_lists(marked), [values[letter] for letter in letters])
    return None if number is None else letters[number]


def _decided(text: str, values: list[str]) -> int | None:
    """Return the number of the option that the marked statements decide for."""
    parts = statements(text)
    asked = {
        i for i, one in enumerate(parts) if one.rstrip().endswith("?") and not (_BARE.match(one) and len(parts) == 1)
    }
    said = [(_rank(one), [] if i in asked else _named(one, values)) for i, one in enumerate(parts)]
    highest = max((rank for rank, named in said if named), default=0)
    ranked = [named for rank, named in said if rank == highest and named]
    if not ranked:
        return None
    if highest > 1:
        last = ranked[-1]
    elif said[0][1] and _leads_alone(text):
        last = said[0][1][:1]
    else:
        last = list({values[number]: number for named in ranked for number in named}.values())
    return last[0] if len(last) == 1 else None


def _leads_alone(text: str) -> bool:
    """Whether a text begins with an option, and no other is joined to it."""
    first = _MARKED.search(text) if _LEADS.match(text) else None
    return first is not None and _AND_ANOTHER.match(text, first.end()) is None


def _rank(statement: str) -> int:
    """Return how far a statement claims to be the answer: 3 as the final one, 2 in so many words or alone, 1 not."""
    if LAST_WORD.search(statement):
        return 3
    praised = any(_PRAISED.match(statement, m.end()) for m in _MARKED.finditer(statement))
    return 2 if praised or CUE.search(statement) or _BARE.match(statement) else 1


def _named(statement: str, values: list[str]) -> list[int]:
    """Return the options that a statement names, those in doubt all of them."""
    after = None
    for cue in CUE.finditer(statement):
        after = cue.end()
    places = [m for m in _MARKED.finditer(statement) if not _denied(statement, m)]
    praised = [m for m in places if _PRAISED.match(statement, m.end())]
    behind = praised or [m for m in places if after is not None and m.start() >= after]
    if not behind:
        distinct = {values[int(m[1])]: int(m[1]) for m in places}
        return list(distinct.values())
    first = behind[0]
    if praised:  # "A or B is the answer": what stands before belongs to it
        before = [m for m in places if m.end() <= first.start()]
        joined = [m for m in before if _AND_ANOTHER.match(statement, m.end())]
        return list({values[int(m[1])]: int(m[1]) for m in [*joined, first]}.values())
    same = {values[int(first[1])]: int(first[1])}
    for place in behind:  # "B) blue" names one option twice
        if values[int(place[1])] not in same:
            break
        if another := _AND_ANOTHER.match(statement, place.end()):
            number = int(_MARKED.findall(another.group())[-1])
            same[values[number]] = number
    return list(same.values())


def _denied(statement: str, place: re.Match[str]) -> bool:
    before = statement[max(0, place.start() - _NEAR) : place.start()]
    return _DENIED_BEFORE.search(before) is not None or _DENIED_AFTER.match(statement, place.end()) is not None


def _without_lists(text: str) -> str:
    """Return the text without lines that only repeat the options, one after the other."""
    lines = text.splitlines()
    alone = [set(_MARKED.findall(line)) if _BARE.match(line) and not _CALLED.search(line) else set() for line in lines]
    kept = []
    for i, line in enumerate(lines):
        near = [alone[j] for j in (i - 1, i + 1) if 0 <= j < len(lines)]
        repeats = len(alone[i]) == 1 and any(len(other) == 1 and other != alone[i] for other in near)
        last = i == len(lines) - 1 and not _follows(alone, i)
        if not repeats or last:
            kept.append(line)
    return "\n".join(kept)


def _follows(alone: list[set[str]], i: int) -> bool:
    """Whether a line goes on with the list before it: the option after that of the line before."""
    return i > 0 and len(alone[i - 1]) == 1 == len(alone[i]) and int(min(alone[i])) == int(min(alone[i - 1])) + 1


def _marks(text: str, options: Mapping[str, str]) -> str:
    """Return the text with every place that names an option as ``STX number ETX``."""
    letters = list(options)
    texts = {i: clean(normal(str(options[letter]))) for i, letter in enumerate(letters)}
    whole = clean(text)
    for i, own in texts.items():
        if own and whole == own:
            return f"\x02{i}\x03"
    for i in sorted(texts, key=lambda i: -len(texts[i])):  # the longest first: "New York" before "York"
        own = texts[i]
        if own and own not in _FLAT and own.upper() not in letters:
            pattern = re.escape(own).replace(r"\ ", r"\s+")
            text = re.sub(rf"(?<![\w.\x02]){pattern}(?![\w\x03]|\.\d|'\w)", f"\x02{i}\x03", text, flags=re.IGNORECASE)
    numbers = {letter: i for i, letter in enumerate(letters)}

    def mark(match: re.Match[str]) -> str:
        letter = next(group for group in match.groups() if group)
        number = numbers.get(letter, numbers.get(letter.upper()))
        named = number is not None and _is_letter(letter, match, number)
        return f"\x02{number}\x03" if named else match.group()

    any_letter = "|".join(map(re.escape, sorted(letters, key=len, reverse=True)))
    any_case = any_letter if not any_letter.isupper() else f"{any_letter}|{any_letter.lower()}"
    pattern = (
        rf"[(\[<]\s?({any_case})\s?[)\]>]|\b(?i:options?|choices?|letter)\s[\"']?({any_case}){_EDGE_AFTER}"
        rf"|{_EDGE}(?<!\x02)({any_case})(?=\s?\)|\s?\.?\s?(?:$|\n)|{_IS_ANSWER}){_EDGE_AFTER}"
        rf"|{_EDGE}(?<!\x02)({any_letter}){_EDGE_AFTER}(?!\x03)"
    )
    return _SAME.sub("\x02\\1\x03", re.sub(pattern, mark, text))


def _is_letter(letter: str, match: re.Match[str], number: int) -> bool:
    """Whether a letter names an option here, and is no article, pronoun, or part of another name."""
    rest = match.string[match.end() :][:_NEAR]
    if match.group(1) or match.group(2):
        return True
    before = match.string[max(0, match.start() - _NEAR) : match.start()]
    if _NO_LETTER_AFTER.search(before):
        return False
    own = rest.lstrip(" ").startswith(f"\x02{number}\x03")
    ends = not rest or (
        re.match(r"\s*(?:[).:,;\]!?\"'/&|>=\-\n]|$|\x02)", rest) is not None and not rest.startswith(" \x02")
    )
    if letter == "I":
        return ends or own or re.match(rf"\s{_I_GOES_ON}", rest) is not None
    if letter.upper() == "A":
        return ends or own or re.match(rf"\s{_GOES_ON}", rest) is not None
    if letter.islower():
        cue = CUE.search(before)
        return not before.strip() or (cue is not None and not before[cue.end() :].strip(" \"'"))
    return True
