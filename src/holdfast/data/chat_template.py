"""Messages -> text whose every character knows its role.

In: the messages of an example and the tokenizer's chat template, or the name of a plain template.
Out: a list of ``Span``; their texts joined are exactly what the model sees.

A chat template is a program, so the place of a message in its output has to be found. We render once with the real
contents and once (per sequence of roles, cached) with placeholders; the text between placeholders is what the template
adds. Walking the real rendering with those pieces gives the exact span of every message, or an error if the template
rewrites the contents: never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from holdfast import runs
from holdfast.errors import HoldfastError
from holdfast.records import Message, Role, Span

# A named plain template: messages -> spans without BOS. An EOS span of empty text stands for the tokenizer's EOS token.
Template = Callable[[Sequence[Message]], list[Span]]

_ALPACA_HEAD = (
    "Below is an instruction that describes a task{and_input}. "
    "Write a response that appropriately completes the request.\n\n"
)
_AND_INPUT = ", paired with an input that provides further context"


def plain(messages: Sequence[Message]) -> list[Span]:
    """Lay out prompt, one space, response, as the WIT code does.

    Where either side of the joint has white space, no further space is put in.
    """
    spans: list[Span] = []
    for message in messages:
        if any(s.text for s in spans) and message.content and not spans[-1].text[-1:].isspace():
            spans += _separator(message)
        spans += _turn(message)
    return spans


def alpaca(messages: Sequence[Message]) -> list[Span]:
    """The Stanford Alpaca layout. A second user message is the optional input field."""
    users = [_content(m) for m in messages if m.role is Role.USER]
    spans = [
        Span(_ALPACA_HEAD.format(and_input=_AND_INPUT if len(users) > 1 else "") + "### Instruction:\n", Role.TEMPLATE),
        users[0],
    ]
    for extra in users[1:]:
        spans += [Span("\n\n### Input:\n", Role.TEMPLATE), extra]
    spans.append(Span("\n\n### Response:\n", Role.TEMPLATE))
    for answer in messages:
        spans += _turn(answer) if answer.role is Role.ASSISTANT else []
    return spans


def dialogue(messages: Sequence[Message]) -> list[Span]:
    """Lay out ``User: ...`` and ``Assistant: ...``, each on a line of its own.

    For chat data and a tokenizer without a chat template.
    """
    spans: list[Span] = []
    for message in messages:
        head = f"{message.role.label.capitalize()}:"
        spans += [Span(head if not spans else "\n" + head, Role.TEMPLATE), *_separator(message), *_turn(message)]
    if messages and messages[-1].role is not Role.ASSISTANT:
        spans.append(Span("\nAssistant:", Role.TEMPLATE))
    return spans


TEMPLATES: dict[str, Template] = {"plain": plain, "alpaca": alpaca, "dialogue": dialogue}
_DEFAULT = {"chat": "dialogue", "alpaca": "alpaca", "pair": "plain", "text": "plain", "prompt": "plain"}


def template_name(requested: str, layout: str, tokenizer: Any) -> str:
    """The template for examples of this layout: ``chat`` (the tokenizer's own) or a key of ``TEMPLATES``.

    ``auto`` takes the chat template if the tokenizer has one and the data is chat, else the plain template of the
    layout.
    """
    if requested == "auto":
        return "chat" if layout == "chat" and tokenizer.chat_template else _DEFAULT[layout]
    if requested == "chat":
        if not tokenizer.chat_template:
            raise HoldfastError(
                "template 'chat' was asked for, but the tokenizer has no chat template", hint="use --template auto"
            )
        return "chat"
    if requested not in TEMPLATES:
        raise HoldfastError(f"unknown template '{requested}'; known: auto, chat, {', '.join(TEMPLATES)}")
    return requested


def template_for(model: str, requested: str, tokenizer: Any) -> str:
    """Return the template for prompts without a layout: ``chat``, a key of ``TEMPLATES``, or ``none``.

    ``none`` leaves the prompts as they are.

    ``auto`` is what the model was tuned with, else the tokenizer's chat template, else none.

    Raises:
        HoldfastError: ``chat`` without a chat template, or an unknown name.
    """
    if requested == "auto":
        return tuned_template(model) or ("chat" if tokenizer.chat_template else "none")
    if requested == "chat" and not tokenizer.chat_template:
        raise HoldfastError(
            f"--template chat: the tokenizer of {model} has no chat template",
            hint="--template none, plain, alpaca or dialogue",
        )
    if requested not in ("chat", "none", *TEMPLATES):
        raise HoldfastError(f"--template {requested}: unknown; known are auto, chat, none, {', '.join(TEMPLATES)}")
    return requested


def tuned_template(model: str) -> str | None:
    """Return the template that the run at ``model`` was tuned with; None if there is not exactly one.

    ``model`` may also be the model folder of the run.
    """
    for run in (Path(model), Path(model).parent):
        if runs.resolve(run) is not None:
            return only_template(runs.read_json(run / "config.json").get("resolved", {}).get("templates", {}))
    return None


def only_template(templates: Mapping[str, int]) -> str | None:
    """The template of all examples, of their counts by template; None if there are several."""
    return next(iter(templates)) if len(templates) == 1 else None


def render(messages: Sequence[Message], template: str, tokenizer: Any) -> list[Span]:
    """Render a whole example: BOS if the tokenizer wants one, the messages, and EOS after the last response.

    Args:
        template: ``chat`` or a key of ``TEMPLATES`` (see ``template_name``).

    Raises:
        HoldfastError: the template rewrites a message so that its place cannot be known, or the tokenizer has no EOS.
    """
    if template == "chat":
        return [s for s in _render_chat(messages, tokenizer) if s.text]
    return _with_specials(TEMPLATES[template](messages), tokenizer)


def generation_prompt(messages: Sequence[Message], template: str, tokenizer: Any, **options: Any) -> str:
    """Return the text after which the model is to answer.

    It is everything up to and including the header of the assistant's turn. ``options`` go to a chat template.
    """
    if template == "chat":
        return str(
            tokenizer.apply_chat_template(_as_dicts(messages), tokenize=False, add_generation_prompt=True, **options)
        )
    return "".join(s.text for s in _with_specials(TEMPLATES[template](messages), tokenizer))


def _turn(message: Message) -> list[Span]:
    span = _content(message)
    return [span, Span("", Role.EOS, message.weight)] if message.role is Role.ASSISTANT else [span]


def _content(message: Message) -> Span:
    return Span(message.content, message.role, message.weight, message)


def _separator(message: Message) -> list[Span]:
    """A space before a message, none before one that begins with white space.

    Before a response it is response: generation starts before it, so the model has to write it."""
    if message.content[:1].isspace():
        return []
    return [Span(" ", Role.ASSISTANT, message.weight) if message.role is Role.ASSISTANT else Span(" ", Role.TEMPLATE)]


def _with_specials(spans: list[Span], tokenizer: Any) -> list[Span]:
    """Put the tokenizer's BOS in front, if it wants one, and its EOS where a template marked the end of a response."""
    whole = [Span(tokenizer.bos_token, Role.TEMPLATE)] if _adds_bos(tokenizer) else []
    whole += [replace(s, text=_eos(tokenizer)) if s.role is Role.EOS else s for s in spans]
    return [s for s in whole if s.text]


def _eos(tokenizer: Any) -> str:
    if tokenizer.eos_token is None:
        raise HoldfastError(
            "the tokenizer has no EOS token, so the model could not learn to stop",
            hint="set eos_token in the tokenizer's tokenizer_config.json",
        )
    return str(tokenizer.eos_token)


def encode(tokenizer: Any, text: str, *, special_tokens: bool) -> tuple[int, ...]:
    """Text -> ids, with the tokenizer's own special tokens (BOS) or without (chat templates print theirs).

    BOS stands at most once in front, and an EOS that the tokenizer appends is taken off.
    """
    ids = tuple(tokenizer(text, add_special_tokens=special_tokens, verbose=False)["input_ids"])
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    while len(ids) > 1 and bos is not None and ids[0] == ids[1] == bos:
        ids = ids[1:]
    if special_tokens and eos is not None and ids[-1:] == (eos,) and not text.endswith(tokenizer.eos_token):
        ids = ids[:-1]
    return ids


def _as_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": m.role.label, "content": m.content} for m in messages]


def _adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer itself would put BOS in front.

    A text is tokenised to see it, because the flags of tokenizers are not reliable.
    """
    cached: bool | None = getattr(tokenizer, "_holdfast_adds_bos", None)
    if cached is None:
        ids = tokenizer("a")["input_ids"]
        cached = bool(ids) and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id
        tokenizer._holdfast_adds_bos = cached
    return cached


def _render_chat(messages: Sequence[Message], tokenizer: Any) -> list[Span]:
    key, roles = _TokenizerKey(tokenizer), tuple(m.role for m in messages)
    try:
        text = tokenizer.apply_chat_template(_as_dicts(messages), tokenize=False)
        pieces = _template_pieces(key, roles)
    except HoldfastError:
        raise
    except Exception as error:  # templates raise what they like (jinja2.TemplateError for the most part)
        raise HoldfastError(
            f"the chat template refuses these messages: {error}", hint="--template dialogue needs no chat template"
        ) from error
    spans = _walk(text, pieces, messages)
    if spans is None:
        raise HoldfastError(
            "the chat template rewrites the messages, so that the place of each cannot be known",
            hint="use --template dialogue, or a chat template that prints the contents as they are",
        )
    spans = _mark_end_of_turn(_give_back_space(spans, key, roles), key, roles)
    last = max((i for i, s in enumerate(spans) if s.role is Role.ASSISTANT), default=None)
    # a template without an end of turn: the last response gets EOS
    if last is not None and spans[last + 1].role is not Role.EOS:
        spans.insert(last + 1, Span(_eos(tokenizer), Role.EOS, spans[last].weight))
    return spans


class _TokenizerKey:
    """Hashable by the tokenizer's identity and by what a user may change in it.

    So what is cached of its template is never that of another template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.key = (id(tokenizer), tokenizer.chat_template, len(tokenizer), tokenizer.eos_token)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _TokenizerKey) and self.key == other.key


@lru_cache(maxsize=512)
def _template_pieces(key: _TokenizerKey, roles: tuple[Role, ...]) -> tuple[str, ...]:
    """Return the len(roles) + 1 pieces that the template prints before, between and after messages of these roles."""
    marked = _placeholders(roles)
    text = key.tokenizer.apply_chat_template(marked, tokenize=False)
    pieces = []
    for turn in marked:
        before, content, text = text.partition(turn["content"])
        if not content:
            raise HoldfastError("the chat template drops a message", hint="--template dialogue prints every message")
        pieces.append(before)
    return (*pieces, text)


@lru_cache(maxsize=512)
def _unprompted(key: _TokenizerKey, roles: tuple[Role, ...]) -> int:
    """Return the length of the white space before the last message that its generation prompt does not hold.

    The model has to write it, so it is response. Text that is more than white space (empty thoughts, say) is left to
    the template.
    """
    if len(roles) < 2:  # there is no prompt, and templates refuse to render nothing
        return 0
    marked = _placeholders(roles)
    prompt = key.tokenizer.apply_chat_template(marked[:-1], tokenize=False, add_generation_prompt=True)
    whole, content, _ = key.tokenizer.apply_chat_template(marked, tokenize=False).partition(marked[-1]["content"])
    rest = whole[len(prompt) :] if content and whole.startswith(prompt) else ""
    return len(rest) if rest.isspace() else 0


def _placeholders(roles: Sequence[Role]) -> list[dict[str, str]]:
    return [{"role": role.label, "content": f"\u2e28{i}\u2e29"} for i, role in enumerate(roles)]


def _walk(text: str, pieces: Sequence[str], messages: Sequence[Message]) -> list[Span] | None:
    """Match ``text`` against piece, content, piece, ...; None if it does not match.

    A template may have stripped the contents.
    """
    spans: list[Span] = []
    at = 0
    for piece, message, following in zip(pieces, messages, pieces[1:], strict=False):
        if not text.startswith(piece, at):
            return None
        spans.append(Span(piece, Role.TEMPLATE))
        at += len(piece)
        for content in dict.fromkeys(
            (message.content, message.content.strip(), message.content.rstrip(), message.content.lstrip())
        ):
            if text.startswith(content + following, at):
                spans.append(replace(_content(message), text=content, start=message.content.find(content)))
                at += len(content)
                break
        else:
            return None
    if text[at:] != pieces[-1]:
        return None
    return [*spans, Span(pieces[-1], Role.TEMPLATE)]


def _give_back_space(spans: list[Span], key: _TokenizerKey, roles: tuple[Role, ...]) -> list[Span]:
    """Count as response the white space before a response that the generation prompt does not hold.

    ``spans`` alternates piece, message.
    """
    given_back: list[Span] = []
    for i, span in enumerate(spans):
        turn = (i - 1) // 2
        length = _unprompted(key, roles[: turn + 1]) if span.role is Role.ASSISTANT else 0
        if length and given_back[-1].text[-length:].isspace():
            head = given_back.pop()
            given_back.append(replace(head, text=head.text[:-length]))
            given_back.append(replace(span, text=head.text[-length:], message=None))
        given_back.append(span)
    return given_back


@lru_cache(maxsize=512)
def _special_token(key: _TokenizerKey) -> re.Pattern[str] | None:
    """Matches white space and a special token; None for a tokenizer without any."""
    specials = sorted({*key.tokenizer.get_added_vocab(), *key.tokenizer.all_special_tokens}, key=len, reverse=True)
    return re.compile(r"\s*(?:" + "|".join(map(re.escape, specials)) + ")") if specials else None


@lru_cache(maxsize=512)
def _turn_end(key: _TokenizerKey, roles: tuple[Role, ...]) -> str:
    """What the template prints after a response up to the tokenizer's EOS, where a conversation of these roles ends
    with it; without that EOS up to the first special token; or nothing.

    Here no header of a next turn can stand before it, so all of it is the turn's end and the model's to write."""
    eos = key.tokenizer.eos_token
    try:
        tail = _template_pieces(key, roles)[-1]
    except Exception:  # a template may refuse a conversation that stops here: what follows is looked at alone
        return ""
    if eos and eos in tail:
        return tail[: tail.index(eos) + len(eos)]
    special = _special_token(key)
    match = special.search(tail) if special else None
    return tail[: match.end()] if match else ""


def _mark_end_of_turn(spans: list[Span], key: _TokenizerKey, roles: tuple[Role, ...]) -> list[Span]:
    """Split what follows an assistant's message: the end of the turn has role EOS, the rest is template.

    The end is everything up to the tokenizer's EOS. Where the template ends a turn with another token (or with the
    header of the next turn, as GLM's does), it is the special token with which the text begins.
    """
    special = _special_token(key)
    marked: list[Span] = []
    turn = -1
    for previous, span in zip([None, *spans], spans, strict=False):
        turn += span.message is not None
        if span.role is not Role.TEMPLATE or previous is None or previous.role is not Role.ASSISTANT:
            marked.append(span)
            continue
        end = _turn_end(key, roles[: turn + 1])
        if not (end and span.text.startswith(end)):
            match = special.match(span.text) if special else None
            end = match.group() if match else ""
        if end:
            marked.append(Span(end, Role.EOS, previous.weight))
        marked.append(replace(span, text=span.text[len(end) :]))
    return marked
