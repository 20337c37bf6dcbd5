"""Whether a response says yes or no: by its last statement that claims to be the answer, else by its first word.

"Yes and no" and "I do not know" are neither. True and false, correct and incorrect count where they are the answer or
are said of "it" or "this"; the words of some other languages count where they stand alone or first.
"""

from __future__ import annotations

import re

from holdfast.sensitivity.answers.text import CUE, LAST_WORD, plain, statements

_YES = (
    "yes|yeah|yep|yup|affirmative|true|correct|right"
    "|ja|oui|s\u00ed|si|sim|\u0434\u0430|\u662f|\u662f\u7684|\u306f\u3044"
)
_NO = (
    "no|nope|nah|negative|false|nein|non|n\u00e3o|\u043d\u0435\u0442|\u4e0d|\u4e0d\u662f|\u5426|\u3044\u3044\u3048"
    "|incorrect|wrong"
)
_WORD = re.compile(rf"(?<!\w)(?:(not )|(?:un)?)(?:(?P<yes>{_YES})|(?P<no>{_NO}))(?!\w)", re.IGNORECASE)
_PLAIN = re.compile(r"(?<!\w)(not )?(?:(?P<yes>yes|true)|(?P<no>no|false))(?=\s*(?:$|[,.;:!)\"']))", re.IGNORECASE)
_LEADS = re.compile(
    rf"""^\W*(?:(?P<yes>{_YES})|(?P<no>{_NO}))\s*
        (?:$|[,.;:!()\"'\n\u2013\u2014-]
          |(?=\b(?:indeed|always|never|it|that|this|there|i|you|he|she|they|we|the|because|since|as|a|an|not)\b))""",
    re.VERBOSE | re.IGNORECASE,
)
_OTHER = re.compile(
    r"^\W*(?:(?:it|the answer)(?: is|'s) )?(?:both )?(?:yes|no|true|false)\W*\s?(?:and|or|/)\W*\s?(?:also )?"
    r"(?:yes|no|true|false)\b|\bneither\b.{0,40}\bnor\b",
    re.I,
)
_HEDGED = re.compile(
    r"\b(?:not\s(?:\w+ly\s)?(?:sure|certain|clear)|unsure|uncertain|unclear|undecided"
    r"|(?:do not|don't|cannot|can't|could not|couldn't)\s(?:\w+ly\s)?(?:know|say|tell|decide|answer|determine)"
    r"|no\s(?:idea|answer|way\sto\s(?:know|tell|say))|hard\sto\s(?:say|tell)|depends"
    r"|(?:maybe|perhaps|possibly)\W{1,3}(?:yes|no)|(?:yes|no)\W{1,3}(?:maybe|perhaps|possibly))\b",
    re.IGNORECASE,
)
"""Words after which only a claim ("The answer is yes.") is an answer, and no word alone."""
_BRIEF = re.compile(
    r"""^\W*(?:(?P<yes>(?:(?:very|most|quite)\s)?(?:probably|likely|presumably)\W+(?:yes|true)
          |(?:yes\W+)?I\s(?:do\s)?(?:think|believe|guess|suppose|would\ssay)\sso
          |I(?:'m|\sam)\safraid\sso|(?:it|that)\s(?:is|would\sbe)\san?\syes\b[^.!?]*
          |(?:yes\W+|indeed\W+|sure\W+)?(?:it|that|this|he|she|they|there)
            \s(?:is|does|was|are|were|do|did|can|has|have|will|would)(?:\sindeed)?)
        |(?P<no>(?:(?:very|most|quite)\s)?(?:(?:probably|likely|presumably)\s(?:not|no)|not\slikely|unlikely)
          |I(?:'m|\sam)\safraid\snot|(?:it|that)\s(?:is|would\sbe)\sa\sno\b[^.!?]*
          |not\s(?:really|at\sall|quite|exactly)|no\sway|by\sno\smeans|I\s(?:do\snot|don't)\s(?:think|believe)\sso
          |I\s(?:think|believe|guess|suppose|would\ssay)\snot
          |(?:no\W+)?(?:it|that|this|he|she|they|there)\s(?:cannot
            |(?:is|does|was|are|were|do|did|can|has|have|will|would|wo|ca)(?:n't|\snot))))\W*$""",
    re.VERBOSE | re.IGNORECASE,
)
"""Whole statements that say yes or no without these words."""
_ASKED = re.compile(r"^\W*(?:yes|true)\s?(?:/|or)\s?(?:no|false)\W*[:?]\s*(?=\w)", re.IGNORECASE)
"""The choice that a prompt offers, said once more before the answer."""
_STRONG = re.compile(
    r"^\W*(?:absolutely|definitely|certainly|indeed|of course|exactly|clearly|surely)(?P<no> not)?\W*(?:$|[.!,])",
    re.IGNORECASE,
)
_SAID = re.compile(
    r"""\b(?:that|this|it|statement|claim|assertion|sentence|which)\b[^.?!\n]{0,60}?
        \b(?:is|was|are|would\sbe|seems)(?P<not>n't|\snot)?\s(?:\w+ly\s|indeed\s|also\s)?
        (?:(?P<yes>true|correct|right|accurate)|(?P<no>false|incorrect|wrong|untrue|inaccurate))\b""",
    re.VERBOSE | re.IGNORECASE,
)


def yes_no(response: str, question: str = "") -> str | None:
    """Return "yes" or "no", or None for a response that says neither or both."""
    text = re.sub(r"\b(it|that|this)'s\b", r"\1 is", plain(response, question), flags=re.IGNORECASE)
    parts = statements(_ASKED.sub("", text))
    if not parts or any(_OTHER.match(part) for part in parts):
        return None
    for final in (True, False):
        for part in reversed(parts):
            if LAST_WORD.search(part) if final else (_claims(part) or _alone(part)):
                answers = _behind_cue(part)
                if answers:
                    return answers.pop() if len(answers) == 1 else None
    if _HEDGED.search(text):
        return None
    for part in parts[:1]:
        if strong := _BRIEF.match(part) or _STRONG.match(part) or _LEADS.match(part):
            answer = "no" if strong.groupdict().get("no") else "yes"
            said = {m.group().lower() for m in _PLAIN.finditer(text)}
            return None if {"yes", "no"} <= said | {answer} else answer
    said = {_polarity(m) for part in parts if not part.endswith("?") for m in _SAID.finditer(part)}
    said = said or {_polarity(m) for m in _PLAIN.finditer(text)}
    return said.pop() if len(said) == 1 else None


def _claims(statement: str) -> bool:
    cues = [m for m in CUE.finditer(statement) if not re.match(r"\W*(?:it|this|that)\b", m.group(), re.IGNORECASE)]
    return bool(cues)


def _alone(statement: str) -> bool:
    return re.fullmatch(rf"\W*(?:{_YES}|{_NO})\W*", statement, re.IGNORECASE) is not None and not statement.endswith(
        "?"
    )


def _behind_cue(statement: str) -> set[str]:
    end = 0
    for cue in CUE.finditer(statement):
        end = cue.end() if _WORD.search(statement[cue.end() :]) else end
    words = list(_WORD.finditer(statement[end:]))
    return {_polarity(m) for m in words[:1]} | {
        _polarity(m) for m in words[1:] if _joined(statement[end:], words[0], m)
    }


def _joined(text: str, first: re.Match[str], other: re.Match[str]) -> bool:
    return (
        re.fullmatch(r"\W*\s?(?:and|or|/)\s?(?:also )?", text[first.end() : other.start()], re.IGNORECASE) is not None
    )


def _polarity(match: re.Match[str]) -> str:
    groups = match.groupdict()
    negated = bool(groups.get("not")) or bool(match.re in (_WORD, _PLAIN) and match.group(1))
    return "yes" if bool(groups["yes"]) != negated else "no"
