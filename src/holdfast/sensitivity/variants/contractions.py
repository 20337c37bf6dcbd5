"""``do not`` becomes ``don't`` and back, where that says the same and is English. Doubtful places are left alone.

Left alone are, above all: a form of *be* or *will* at the end of its clause ("tell me where it is."), or with the rest
of its clause in front of it ("how old you are today"); questions whose order would break ("Don't you ..."); *'s* that
is *has* ("it's been") or an owner's; *let us* that asks for leave ("let us know"); *have* that is no auxiliary ("I have
to"); and words in capitals, because these are meant as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from random import Random

from holdfast.sensitivity.variants.items import Draft, PromptItem, like
from holdfast.sensitivity.variants.protect import outside, protected_spans

_NOT = {
    "do not": "don't", "does not": "doesn't", "did not": "didn't", "is not": "isn't", "are not": "aren't",
    "was not": "wasn't", "were not": "weren't", "cannot": "can't", "can not": "can't", "will not": "won't",
    "would not": "wouldn't", "should not": "shouldn't", "could not": "couldn't", "have not": "haven't",
    "has not": "hasn't", "had not": "hadn't",
}  # fmt: skip
_BE = {
    "it is": "it's", "that is": "that's", "what is": "what's", "who is": "who's", "where is": "where's",
    "there is": "there's", "i am": "i'm", "you are": "you're", "we are": "we're", "they are": "they're",
}  # fmt: skip
_OTHERS = {"i will": "i'll", "you will": "you'll", "let us": "let's", "i have": "i've"}
_SHORT = _NOT | _BE | _OTHERS
_LONG = {short: long for long, short in _SHORT.items() if long != "can not"}

_ASKING = {
    "what",
    "who",
    "whom",
    "whose",
    "where",
    "when",
    "why",
    "how",
    "which",
    "whatever",
    "whoever",
    "wherever",
    "whichever",
    "however",
}
_SUBJECTS = {
    "i", "you", "he", "she", "it", "we", "they", "there", "this", "that", "these", "those", "the", "a", "an", "my",
    "your", "his", "her", "its", "our", "their", "all", "some", "any", "every", "each", "both", "most", "many",
    "people", "one",
}  # fmt: skip
_GAPS = {"than", "as", "so", "whether", "unlike", "like"} | _ASKING
"""Words after which a clause may have lost what would follow its verb."""
_STOPS = {
    "and",
    "or",
    "but",
    "if",
    "when",
    "while",
    "because",
    "before",
    "after",
    "until",
    "than",
    "that",
    "then",
    "today",
    "now",
    "not",
}
"""Words that do not go on with a clause."""
_BEEN = {
    "been", "had", "got", "done", "seen", "gone", "known", "heard", "told", "become", "tried", "decided", "asked",
    "noticed", "received", "finished", "forgotten", "begun", "written", "made", "taken", "given",
}  # fmt: skip
_IS_DONE = {"called", "named", "located", "based", "supposed", "related", "known"}
"""Participles before which *'s* is *is*."""
_HAS = _BEEN - _IS_DONE | {
    "come",
    "happened",
    "rained",
    "started",
    "always",
    "never",
    "ever",
    "already",
    "just",
    "recently",
    "since",
}
_SENTENCE = 1000
"""Characters before a place that may be of the same sentence."""
_LET = {"assume", "suppose", "consider", "imagine", "define", "denote", "say", "discuss", "examine"}
"""Verbs with which *let us* proposes, and asks for no leave."""


def contractions(item: PromptItem, rng: Random) -> Iterator[Draft]:
    """Yield every place at once, then each place alone: contracted, then expanded."""
    text = item.question
    closed = protected_spans(text, item.keep)
    for name, table, allowed in (("contracted", _SHORT, _may_contract), ("expanded", _LONG, _may_expand)):
        places = [place for place in _places(text, table, allowed) if outside(place, closed)]
        yield _with(item, places, table, name)
        for place in places if len(places) > 1 else ():
            yield _with(item, [place], table, f"{name}-one")


def _with(item: PromptItem, places: list[re.Match[str]], table: dict[str, str], change: str) -> Draft:
    text = item.question
    for place in reversed(places):
        text = text[: place.start()] + like(place.group(), table[_key(place.group())]) + text[place.end() :]
    return item.draft(text, change=change)


def _places(
    text: str, table: dict[str, str], allowed: Callable[[str, list[str], str], bool]
) -> Iterator[re.Match[str]]:
    """Yield the places where a form of the table stands and may be changed. Words in capitals stay, but for "I"."""
    forms = sorted(table, key=len, reverse=True)
    pattern = "|".join(re.escape(form).replace("'", "['\u2019]") for form in forms)
    for match in re.finditer(rf"(?<![\w'\u2019])(?:{pattern})(?![\w'\u2019])", text, re.IGNORECASE):
        words = match.group()
        if _key(words) in table and words[1:] == words[1:].lower():
            before = re.split(r"[.!?:;\n]", text[max(0, match.start() - _SENTENCE) : match.start()])[-1]
            if allowed(_key(words), re.findall(r"[\w'\u2019]+|[^\w\s]", before), text[match.end() :]):
                yield match


def _key(words: str) -> str:
    return words.lower().replace("\u2019", "'")


def _next_words(after: str, count: int = 2) -> list[str]:
    """Return the next words of the same clause, in small letters."""
    clause = re.match(r"(?: +[\w'\u2019-]+)*", after)
    return clause.group().lower().split()[:count] if clause else []


def _may_contract(form: str, words: list[str], after: str) -> bool:
    """Whether a long form may become a short one. ``words`` are the words and marks of the sentence before it."""
    lower = [word.lower() for word in words]
    following = _next_words(after)
    if form in _NOT:
        return bool(following) or form in ("cannot", "can not") or bool(lower)
    if not following or following[0] in _STOPS:
        return False
    if form == "let us":
        return not lower and following[0] in _LET
    if form == "i have":
        return following[0] in _BEEN and not set(lower) & _GAPS
    return not set(lower) & _GAPS


def _may_expand(form: str, words: list[str], after: str) -> bool:
    """Whether a short form may become a long one."""
    lower = [word.lower() for word in words]
    following = _next_words(after, 3)
    if form in _NOT.values():
        return _keeps_order(form, lower, following, after)
    if form.endswith("'s") and form != "let's":
        participle = next((w for w in following if w not in ("not", "only", "also")), "")
        asks = form in ("what's", "who's", "where's") and bool(set(following) & (_BEEN - _IS_DONE))  # "What's he done?"
        has = asks or participle in _HAS or (participle.endswith("ed") and participle not in _IS_DONE)
        return bool(following) and not has
    return bool(following)


def _keeps_order(form: str, lower: list[str], following: list[str], after: str) -> bool:
    """Whether the order stays right: "You don't go" and "Don't go" may become "do not"; "Don't you go?" may not."""
    name = re.match(r" +([A-Z]\w+)", after) is not None
    subject = bool(following) and (following[0] in _SUBJECTS or name)
    starts = not lower or not re.match(r"\w", lower[-1])
    if starts and form != "don't":
        return False
    if (starts or lower[-1] in ("and", "please")) and form == "don't":
        return bool(following) and not (
            following[0] in _SUBJECTS and following[0] not in ("all", "some", "any", "each")
        )
    if set(lower) & _ASKING and subject:
        return False
    return lower[-1] not in ("why", "how", "when", "where") and not (
        following and following[0] in {"i", "you", "he", "she", "we", "they"}
    )
