"""A model's answer to a request for rewritings -> the rewritings alone.

Left out, and returned apart so that it can be counted: thoughts, preambles ("Sure! Here are 3 rewrites:"), headings,
closing remarks, refusals, program text, and parts too short to be the whole prompt. A line that begins as the prompt
itself begins is no remark.

    list         a numbered or bulleted answer: its items, without marker, bold type and quotation marks
    JSON         a list of strings
    otherwise    one rewriting per line
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.chat import without_thoughts
from holdfast.errors import from_json

_FENCE = re.compile(
    r"^[ \t]*(?:```|~~~)[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:^[ \t]*(?:```|~~~)[ \t]*$|\Z)", re.MULTILINE | re.DOTALL
)
_TEXT_FENCES = ("", "text", "txt", "plaintext", "plain", "markdown", "md", "json")

_WRITTEN = r"re-?writ(?:e|ing|ten\ (?:version|text|prompt|question))|re-?phrasing|re-?wording|paraphrase"
_NOUN = rf"(?:{_WRITTEN}|version|variation|variant|option|alternative)"
_MARK = re.compile(
    rf"""^(?P<indent>\s*) (?P<bold>\*\*|__)?
         (?: \(?\d{{1,2}}[.):\]](?!\d) | \d\ufe0f?\u20e3 | [-*\u2022\u2023\u25e6\u2013\u2014](?=\s)
           | {_NOUN}\ \#?\d{{1,2}}\ ?[:.)] )
         (?P<closed>(?:\*\*|__)?:?) \s* (?P<text>.*)$""",
    re.VERBOSE | re.IGNORECASE,
)
_WRAPS = (
    ("**", "**"),
    ("__", "__"),
    ("*", "*"),
    ("_", "_"),
    ('"', '"'),
    ("\u201c", "\u201d"),
    ("\u00ab", "\u00bb"),
    ("'", "'"),
    ("`", "`"),
)

_LABEL = re.compile(
    rf"""^(?: (?:\*\*|__)[^*_\n]{{1,40}}(?::(?:\*\*|__)|(?:\*\*|__):) | \(?[a-h][.)](?=\s)
           | (?:output|answer|result|response)\s*:
           | here\ ?(?:is|'s|\u2019s)\ (?:a|an|one|the|my)\ (?:\w+\ )?{_NOUN}(?:\ \w+){{0,5}}:
           | {_NOUN}\ ?(?:prompt|question|text)?\s*:
           | (?:re-?written|re-?phrased|paraphrased)\ ?(?:prompt|question|text|version)?\s*: )\s*(?=\S)""",
    re.VERBOSE | re.IGNORECASE,
)
"""What a model puts before a rewriting in the same line: a name in bold type, a letter, "Here's a rewrite:"."""
_TAGS = re.compile(
    r"^<(answer|output|rewrite|rewritten|paraphrase|result|response)>\s*(.*?)\s*</\1>$", re.DOTALL | re.IGNORECASE
)
_ABOUT = (
    r"re-?writ|re-?phras|re-?word|paraphras|version|variation|alternative|options|different|attempt|\bways?\b|\blist\b"
    r"|\bgo\b|\bare\b.{0,40}:$"
)
_REMARK = re.compile(
    rf"""^(?: (?:sure|certainly|absolutely|of\ course|okay|ok|alright|got\ it|no\ problem)\s*[,!.:\u2014-]
            | here\s*(?:is|are|'s|\u2019s|you)\b (?: .*(?:{_ABOUT}) | (?:\s+\S+){{0,12}}:$ )
            | (?:below|the\ following)\s+(?:is|are)\b .*(?:{_ABOUT}|:$)
            | these\ (?:all|are\ all|{_NOUN}) | all\ of\ (?:these|them)\b.*\bsame
            | (?:i\ )?hope\ (?:this|that|these|it|they)\ (?:helps?|works?)\b | i\ hope\b
            | i(?:'ve|\u2019ve|\ have)\ (?:re-?written|re-?phrased|re-?worded|paraphrased|kept|tried)\b
            | (?:please\ )?let\ me\ know\ if\ (?:you|there|any|this|these)\b | feel\ free\ to\b
            | is\ there\ anything\ else
            | \(?note\s*: | (?:re-?written|re-?phrased|paraphrased|original)(?:\ \w+)?\s*:
            | {_NOUN}s?\W*$
            | (?:i'm|i\u2019m|i\ am)\ (?:sorry|unable)\b | sorry[,.] | unfortunately\b
            | as\ an?\ (?:ai|(?:large\ )?language\ model)\b
            | i\ (?:cannot|can't|can\u2019t|won't)\b
            | [(<\[]?(?:none|null|nil|nan|n/a|undefined)[)>\]]?\.?$
            | \#{{1,6}}\s | [\W\d_]*$ )""",
    re.VERBOSE | re.IGNORECASE,
)
_PROGRAM = re.compile(
    r"""^(?: (?:async\ )?def\ \w+\( | class\ \w+\s*[(:{] | import\ [\w{*] | from\ [\w.]+\ import\b
           | \#!?\s*include\b | \#!/ | using\ \w+
           | (?:public|private|static|void|int|const|let|var)\s+\w+\s*[=({] | int\ main | function\s*\w*\( | console\.
           | <\?php | <!DOCTYPE | >>>\ | //\ | /\* | \$\ \w+ | SELECT\ .+\ FROM\  | @\w+$ )""",
    re.VERBOSE,
)
_STATEMENT = re.compile(
    r"""^\s*(?: for\ \w+(?:,\ \w+)*\ in\ .+:$ | (?:while|if|elif|with)\ .+:$ | (?:else|try|finally):$ | except\b.*:$
           | print\(
           | [\w.\[\]'"]+\s*[-+*/]?=\s*\S.*$ | [\w.]+\(.*\);?$ | .*[;{}]$ | [)\]}]+[;,]?$ )""",
    re.VERBOSE,
)
_WHOLE, _LEAST_SHARE = 20, 1 / 3


@dataclass(frozen=True)
class Rewritings:
    """The rewritings in an answer, and what else was in it."""

    texts: list[str]
    left_out: list[str]


def read_answer(answer: str, question: str) -> Rewritings:
    """Return the rewritings of ``question`` in a model's answer."""
    text, left_out = without_thoughts(answer, question)
    text, dropped = _without_programs(text, question)
    left_out += dropped
    listed = _json_list(text)
    lines = text.splitlines()
    if listed is None and any(_MARK.match(line) for line in lines):
        listed, rest = _list_items(lines, several_lines="\n" in question.strip())
        left_out += rest
    candidates = listed if listed is not None else _lines(text, question)
    texts: list[str] = []
    for candidate in candidates:
        cleaned = _unwrapped(candidate.strip(), question)
        (left_out if is_remark(cleaned, question) or _cut_short(cleaned, question) else texts).append(cleaned)
    return Rewritings(texts, left_out if texts or left_out else ["(an empty answer)"])


def is_remark(text: str, question: str) -> bool:
    """Whether a text is about the rewritings, a heading or program text, unless the prompt is so itself."""
    if not text or (_REMARK.match(text) and not _REMARK.match(question)):
        return True
    headed = any(line.rstrip().endswith(":") for line in question.splitlines())
    heading = text.endswith(":") and len(text.split()) < 7 and not headed
    return heading or (not _has_program(question) and _has_program(text))


def _has_program(text: str) -> bool:
    return any(_PROGRAM.match(line) or _STATEMENT.match(line) for line in text.splitlines())


def _without_programs(text: str, question: str) -> tuple[str, list[str]]:
    """Return the content of fences that hold text; program text without a fence is cut off, to the end."""
    if "```" in question or _has_program(question):
        return text, []
    left_out = [f"({m[1]} code)" for m in _FENCE.finditer(text) if m[1].lower() not in _TEXT_FENCES]
    text = _FENCE.sub(lambda m: m[2] if m[1].lower() in _TEXT_FENCES else "", text)
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if _PROGRAM.match(line)), len(lines))
    return "\n".join(lines[:start]), left_out + lines[start:]


def _json_list(text: str) -> list[str] | None:
    if not text.strip().startswith("["):
        return None
    try:
        listed = from_json(text)
    except ValueError:
        return None
    if not isinstance(listed, list) or not all(item is None or isinstance(item, str) for item in listed):
        return None
    return [item or "null" for item in listed]


def _list_items(lines: Sequence[str], several_lines: bool) -> tuple[list[str], list[str]]:
    """Return the items of a list, and the lines that are in none.

    An item goes on over the lines that follow where the prompt has several lines, or where its marker stands alone.
    """
    items: list[list[str]] = []
    rest = []
    depth = min(len(m["indent"]) for line in lines if (m := _MARK.match(line)))
    for line in lines:
        mark = _MARK.match(line)
        if mark and len(mark["indent"]) <= depth + 1:
            text = mark["text"]
            if mark["bold"] and not mark["closed"].startswith(mark["bold"]):
                text = text.strip().removesuffix(mark["bold"])
            items.append([text] if text.strip() else [])
        elif items and (several_lines or (not items[-1] and line.strip())):
            items[-1].append(line)
        elif line.strip():
            rest.append(line)
    return ["\n".join(item) for item in items if item], rest + ["(an empty item)" for item in items if not item]


def _lines(text: str, question: str) -> list[str]:
    """Return one rewriting per line, as was asked for, or paragraphs where only these are long enough to be whole."""
    lines = [line for line in text.splitlines() if line.strip()]
    paragraphs = [paragraph for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]
    short = all(_cut_short(line, question) for line in lines)
    return paragraphs if short and "\n" in question.strip() else lines


def _cut_short(text: str, question: str) -> bool:
    """Whether most of a long prompt is missing."""
    words = len(question.split())
    return words >= _WHOLE and len(text.split()) < _LEAST_SHARE * words


def _unwrapped(text: str, question: str) -> str:
    """Return a text without a label before it, or tags, bold type or quotation marks around all of it."""
    if not _LABEL.match(question):
        text = _LABEL.sub("", text)
    if not question.startswith("<"):
        text = _TAGS.sub(r"\2", text)
    for left, right in _WRAPS:
        inner = text[len(left) : len(text) - len(right)]
        wrapped = len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right)
        if wrapped and left not in inner and right not in inner and not question.startswith(left):
            text = inner.strip()
    return text
