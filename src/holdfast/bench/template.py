"""Which template a model is asked in: that of the run it was tuned in, else the tokenizer's own, else none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast import runs
from holdfast.chat import TEMPLATES
from holdfast.errors import HoldfastError


def template_for(model: str, requested: str, tokenizer: Any) -> str:
    """Name of a template of ``holdfast.chat``, or ``none`` for prompts as the benchmark writes them.

    Raises:
        HoldfastError: ``chat`` without a chat template, or an unknown name.
    """
    if requested == "auto":
        tuned = _tuned_with(model)
        return tuned or ("chat" if tokenizer.chat_template else "none")
    if requested == "chat" and not tokenizer.chat_template:
        raise HoldfastError(
            f"--template chat: the tokenizer of {model} has no chat template", hint="--template none, plain, alpaca or dialogue"
        )
    if requested not in ("chat", "none", *TEMPLATES):
        raise HoldfastError(f"--template {requested}: unknown; known are auto, chat, none, {', '.join(TEMPLATES)}")
    return requested


def _tuned_with(model: str) -> str | None:
    run = next((path for path in (Path(model), Path(model).parent) if runs.resolve(path) is not None), None)
    if run is None:
        return None
    templates = runs.read_json(run / "config.json").get("resolved", {}).get("templates", {})
    return next(iter(templates)) if len(templates) == 1 else None
