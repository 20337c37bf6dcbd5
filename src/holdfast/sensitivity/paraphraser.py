"""A name or an address -> a function that asks that model for paraphrases, greedily."""

from __future__ import annotations

from typing import Any

from holdfast import http
from holdfast.errors import HoldfastError
from holdfast.sensitivity.variants.wording import Ask

_LONGEST = 1024


def asker(name: str, *, trust_remote_code: bool = False) -> Ask:
    """``http://host/v1#model`` asks a server's chat completions; anything else is loaded as in ``--model``."""
    return _served(name) if name.startswith(("http://", "https://")) else _loaded(name, trust_remote_code)


def _loaded(name: str, trust_remote_code: bool) -> Ask:
    from holdfast import lm as models
    from holdfast.data.chat_template import generation_prompt
    from holdfast.records import Message, Role

    lm = models.load(name, trust_remote_code=trust_remote_code)
    template = "chat" if lm.tokenizer.chat_template else "plain"

    def ask(instruction: str) -> str:
        prompt = generation_prompt([Message(Role.USER, instruction)], template, lm.tokenizer)
        room = lm.context - len(lm.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        if room < 1:
            raise HoldfastError(f"{name}: a text to paraphrase does not fit into its context of {lm.context} tokens")
        most = min(_LONGEST, room)
        answer = lm.generate([prompt], max_new_tokens=most)[0]
        cut = len(lm.tokenizer(answer, add_special_tokens=False)["input_ids"]) >= most
        return _without_last_line(answer) if cut else answer

    return ask


def _served(address: str) -> Ask:
    base, _, model = address.partition("#")
    if not model:
        raise HoldfastError(f"{address}: no model named", hint="http://host:8000/v1#model-name")
    client = http.Client(base, timeout=300.0, retries=4, key=http.api_key("OPENAI_API_KEY"))

    def read(answer: Any) -> str:
        text = http.chat_text(answer)
        return _without_last_line(text) if answer["choices"][0].get("finish_reason") == "length" else text

    def ask(instruction: str) -> str:
        request = {
            "model": model,
            "messages": [{"role": "user", "content": instruction}],
            "temperature": 0,
            "max_tokens": _LONGEST,
        }
        return str(client.post("/chat/completions", request, read, "chat completion"))

    return ask


def _without_last_line(answer: str) -> str:
    """An answer that was cut off in the middle of a line, which is no whole rewriting."""
    return answer.rpartition("\n")[0]
