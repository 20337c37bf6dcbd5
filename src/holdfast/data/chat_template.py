"""Messages -> text whose every character knows its role.

In: the messages of an example and the tokenizer's chat template, or the name of a plain template.
Out: a list of ``Span``; their texts joined are exactly what the model sees.

How the parts of a chat template's output are found says ``conversation``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast import runs
from holdfast.data.conversation import eos_text, prompt_of, render_chat, set_stops
from holdfast.data.joint import between, without_end, without_start
from holdfast.errors import HoldfastError, from_json
from holdfast.records import Message, Role, Span
from holdfast.tables.text import counted

# A named plain template: messages -> spans without BOS. An EOS span of empty text stands for the tokenizer's EOS token.
Template = Callable[[Sequence[Message]], list[Span]]

_ALPACA_HEAD = (
    "Below is an instruction that describes a task{and_input}. "
    "Write a response that appropriately completes the request.\n\n"
)
_AND_INPUT = ", paired with an input that provides further context"


def plain(messages: Sequence[Message]) -> list[Span]:
    """Lay out prompt, one space, response, as the WIT code does; see ``joint.between``."""
    spans: list[Span] = []
    for message in messages:
        if any(s.text for s in spans) and message.content:
            spans += _separator(message, between(spans[-1].text, message))
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
        spans += [
            Span(head if not spans else "\n" + head, Role.TEMPLATE),
            *_separator(message, between("", message)),
            *_turn(message),
        ]
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


def prepare(
    tokenizer: Any, chat_template: str | None = None, kwargs: Mapping[str, str] | None = None, stop: str | None = None
) -> dict[str, Any]:
    """Put the options about chat templates into a tokenizer: another template, another stop. Returns the values that
    every row's template is given; texts that spell a JSON value are that value.

    Raises:
        HoldfastError: no such file, or a stop that is no single token.
    """
    if chat_template is not None:
        try:
            tokenizer.chat_template = Path(chat_template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise HoldfastError(f"--chat-template {chat_template}: cannot be read ({error})") from error
    if stop is not None:
        ids = tokenizer(stop, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise HoldfastError(
                f"--stop {stop!r} is {counted(len(ids), 'token')}, not one", hint="name a token of the tokenizer"
            )
        set_stops(tokenizer, ids)
    return values_of(kwargs or {})


def values_of(kwargs: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of the option --chat-template-kwargs: texts that spell a JSON value are that value."""
    return {name: _value(text) for name, text in kwargs.items()}


def _value(text: str) -> Any:
    for spelled in (text, text.lower()):  # True is how Python spells it
        with contextlib.suppress(json.JSONDecodeError):
            return from_json(spelled)
    return text


def with_kwargs(items: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Examples or pairs with values for their chat template beside those of their rows, which go over them."""
    return [replace(item, template_kwargs={**kwargs, **item.template_kwargs}) for item in items] if kwargs else [*items]


def check_used(chat_template: str | None, templates: Mapping[str, int]) -> None:
    """Raise if a file of a chat template was given that no row was rendered with. ``templates``: rows by template."""
    if chat_template is not None and templates and "chat" not in templates:
        raise HoldfastError(
            f"--chat-template {chat_template} has no effect: the rows are rendered by {', '.join(templates)}",
            hint="--template chat",
        )


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


def render(
    messages: Sequence[Message],
    template: str,
    tokenizer: Any,
    tools: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    asks: bool = False,
) -> list[Span]:
    """Render a whole example: BOS if the tokenizer wants one, the messages, and EOS after the last response.

    Args:
        template: ``chat`` or a key of ``TEMPLATES`` (see ``template_name``).
        tools: schemas of the tools that the model may call.
        kwargs: what the chat template is given beside (``enable_thinking``).
        asks: whether the text is to end where the model writes, as ``generation_prompt`` ends.

    Raises:
        HoldfastError: the template rewrites or leaves out something that the row says, or the tokenizer has no EOS.
    """
    if template == "chat":
        return [s for s in render_chat(messages, tokenizer, tools, kwargs, asks=asks) if s.text]
    if tools or kwargs or any(m.extras for m in messages):
        names = ["tools"] * bool(tools) + ["chat_template_kwargs"] * bool(kwargs)
        names += dict.fromkeys(name for m in messages for name in m.extras)
        raise HoldfastError(
            f"template '{template}' has no place for {', '.join(names)}", hint="--chat-template FILE gives one that has"
        )
    return _with_specials(TEMPLATES[template](messages), tokenizer)


def generation_prompt(
    messages: Sequence[Message],
    template: str,
    tokenizer: Any,
    tools: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> str:
    """Return the text after which the model is to answer.

    It is everything up to and including the header of the assistant's turn. ``tools`` and ``kwargs`` go to a chat
    template.
    """
    if template == "chat":
        return prompt_of(messages, tokenizer, tools, kwargs)
    return "".join(s.text for s in _with_specials(TEMPLATES[template](messages), tokenizer))


def _turn(message: Message) -> list[Span]:
    span = _content(message)
    return [span, Span("", Role.EOS, message.weight)] if message.role is Role.ASSISTANT else [span]


def _content(message: Message) -> Span:
    return Span(message.content, message.role, message.weight, message)


def _separator(message: Message, text: str) -> list[Span]:
    """What stands before a message. Before a response it is response: the model has to write it."""
    is_response = message.role is Role.ASSISTANT
    return [Span(text, Role.ASSISTANT, message.weight) if is_response else Span(text, Role.TEMPLATE)]


def _with_specials(spans: list[Span], tokenizer: Any) -> list[Span]:
    """Put the tokenizer's BOS in front, if it wants one, and its EOS where a template marked the end of a response.

    What the texts hold of both already is not put there twice.
    """
    whole: list[Span] = []
    if _adds_bos(tokenizer):
        spans = without_start(spans, tokenizer.bos_token)
        whole.append(Span(tokenizer.bos_token, Role.TEMPLATE))
    for span in spans:
        if span.role is Role.EOS:
            span = replace(span, text=eos_text(tokenizer))
            whole[-1:] = [without_end(last, span.text) for last in whole[-1:]]
        whole.append(span)
    return [s for s in whole if s.text]


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
