"""What a chat model writes -> the plain text that answers are read from, and its statements.

Thoughts are dropped; marks of Markdown and LaTeX go, and what they mark stays. A *statement* is a stretch up to the
next full stop, question mark, line or "but". Some say that they are the answer ("The answer is ...", a boxed one, a
line that holds nothing else); the last of these counts.
"""

from __future__ import annotations

import re
import unicodedata

from holdfast.chat import without_thoughts

_SIGNS = str.maketrans(
    "\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb\u2212\u3002\u2044",
    "''" + 5 * '"' + "-./",
    "\ufeff\u200b\u200c\u200d\u2060",
)
"""Signs of print -> those of a keyboard; what is not seen is left out."""
_RAISED = dict(zip(map(ord, "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b"), "0123456789-"))
_FRACTIONS = re.compile(r"(?<=\d)([\u00bc-\u00be\u2150-\u215e])")
_LATEX = re.compile(r"\\(?:boxed|fbox|text|textbf|mathbf|mathrm|textit|emph|mbox|textrm|bf)\s*\{([^{}]*)\}")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{|<(?:final_?)?answer>", re.IGNORECASE)
_TAGGED = re.compile(r"<([a-z][\w-]*)(?:\s[^<>]*)?>([^<>]*)</\1>", re.IGNORECASE)
_FENCES = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*[\w+#.-]*[ \t]*$", re.MULTILINE)
_MARKS = re.compile(
    r"\\[()\[\]]|\${1,2}|\\,|\\;|\\!|[*`]+|(?<!\w)_+|_+(?!\w)|^[ \t]*(?:>+|[-\u2022\u2023\u25e6](?=\s))[ \t]*"
    r"|^[ \t]*(?:[-=~][ \t]*){3,}$",
    re.MULTILINE,
)
"""Marks of Markdown and LaTeX: of type, of quotations and bullets, and rules across the page."""
_NEXT_QUESTION = re.compile(r"(?im)^\s*(?:#+\s*)?(?:q|question|problem|input|user|human)\s*\d*\s*[:.]")
_LONGEST = 20_000
"""Characters that are read of a response: of a longer one its beginning and its end."""
FINAL = "final answer: "
"""What stands in place of a box, because a box is the final answer."""

_CUE_NOUN = (
    r"(?:answers?|choice|solution|conclusion|result|verdict|respuesta|r\u00e9ponse|reponse|antwort|risposta|resposta"
    r"|\u043e\u0442\u0432\u0435\u0442|\u7b54\u6848|\u7b54\u3048)"
)
_BECOMES = (
    r"(?:\b(?:is|was|are|be|being|equals|es|est|ist|lautet|\u00e9)\b|\u00e8(?=\s)|\u662f|\u306f|->|=>|\u2192|\u21d2"
    r"|[:=])"
)
CUE = re.compile(
    rf"""(?:\b|(?<=[\u4e00-\u9fff])){_CUE_NOUN}(?:\b|(?=[\u4e00-\u9fff\u3040-\u30ff]))[^.!?\n:=]{{0,40}}?{_BECOMES}\s*:?
       | \b(?:correct|right|best|final|true|chosen|appropriate)\s(?:\w+\s)?
            (?:option|one|letter|number|value|total|statement|alternative)\b[^.!?\n:=]{{0,30}}?{_BECOMES}\s*:?
       | \bI(?:'d|'ll|\swould|\swill|\shave|\sam|'m)?\s(?:\w+ly\s)?
            (?:choose|chose|chosen|choosing|pick|picked|select|selected|go(?:ing)?\swith|went\swith|say|vote\sfor|answer
              |opt\sfor|prefer|think|believe|conclude)\b
       | (?:^\W*|,\s)(?:therefore|thus|hence|so|consequently|in\ conclusion|in\ summary|overall|ultimately|finally
            |in\ short)\b
       | \b(?:it|this|that)(?:'s|\sis|\smust\sbe|\shas\sto\sbe|\sshould\sbe|\swould\sbe)\b
       | ^\W*\#\#\#\#""",
    re.VERBOSE | re.IGNORECASE,
)
"""Words after which a statement gives the answer."""
_CUE_END = re.compile(rf"{CUE.pattern}\s*$", re.VERBOSE | re.IGNORECASE | re.MULTILINE)
LAST_WORD = re.compile(rf"\bfinal\b[^.!?\n]{{0,20}}\b{_CUE_NOUN}\b|^\W*\#\#\#\#", re.VERBOSE | re.IGNORECASE)
"""Words that say that no other answer follows."""


def plain(text: str, question: str = "") -> str:
    """Return what a response says: without thoughts, marks of type, and a further question that a model went on with.

    ``question``: the prompt; where it holds the tags of thoughts itself, they are no thoughts.
    """
    text = normal(without_thoughts(text, question)[0]).strip()
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 4]}\n{text[-3 * _LONGEST // 4 :]}"
    later = next((m for m in _NEXT_QUESTION.finditer(text) if text[: m.start()].strip()), None)
    text = text[: later.start()] if later else text
    text = _BOXED.sub(lambda m: f"\n{FINAL}{m.group()}", text)
    return _joined(re.sub(r"[ \t]+", " ", without_marks(text)))


def normal(text: str) -> str:
    """Return text with the signs of a keyboard: straight quotation marks, a minus, plain digits and letters.

    A raised digit becomes ``^2`` and a fraction such as one half ``1/2``, behind a number with a space between.
    """
    text = re.sub(rf"[{''.join(map(chr, _RAISED))}]+", lambda m: f"^{m.group().translate(_RAISED)}", text)
    text = re.sub(r"\u2212\s*(?=\d)", "-", _FRACTIONS.sub(r" \1", text))
    return unicodedata.normalize("NFKC", text.translate(_SIGNS)).translate(_SIGNS)


def without_marks(text: str) -> str:
    """Return text without marks of Markdown, LaTeX and HTML; what they mark stays."""
    for _ in range(4):  # a box may hold a text that holds bold type
        text = _TAGGED.sub(r" \2 ", _LATEX.sub(r"\1", text))
    text = re.sub(r"~~[^~\n]+~~", " ", text)  # struck out
    text = re.sub(r"(?<=\d)\s?\*\s?(?=\d)", " \u00d7 ", text)  # a product, not bold type
    return _MARKS.sub(" ", _FENCES.sub("", text))


def _joined(text: str) -> str:
    """Return the text with the line after "The answer is:" put behind it."""
    lines: list[str] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if lines and _CUE_END.search(lines[-1]) and lines[-1][-1] in ":=":
            lines[-1] += f" {line}"
        else:
            lines.append(line)
    return "\n".join(lines)


def statements(text: str) -> list[str]:
    """Return the statements of a plain text."""
    parts = re.split(
        r"(?<=[.;!?])\s+|\n+|(?<!verything)(?<!nything)(?<!\b[Aa]ll),?\s+(?=(?:but|however|whereas|although|though)\b)",
        text,
    )
    return [part for part in parts if part.strip()]


def clean(text: str) -> str:
    """Return text in small letters, without marks and white space around it."""
    return re.sub(r"\s+", " ", text).strip(" \t\r\n.,;:!?\"'`*()[]").lower()
