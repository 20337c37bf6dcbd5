"""A chat endpoint over real HTTP, in OpenAI's form and in Anthropic's, whose answers a function makes.

``refuses``: fields or field values that it does not take, as servers do: the name of the field is in the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from http_server import Reply, Request, serving

Say = Callable[[list[dict[str, Any]], int], str | dict[str, Any]]
"""Messages and the number of the request -> a text, or parts of the answer that stand in for those made of it."""


@contextmanager
def chatting(
    say: Say, refuses: dict[str, str] | None = None, names: tuple[str, ...] = ("m",), any_name: bool = False
) -> Iterator[Any]:
    """A running endpoint: ``.url``; ``.bodies`` of the questions that were answered, ``.refused`` how many were not."""

    def answer(request: Request) -> Reply:
        if request.path.endswith("/models"):
            return Reply({"data": [{"id": name} for name in names]})
        body = request.body
        if not request.path.startswith("/v1"):
            return Reply({"detail": "Not Found"}, 404)
        if body["model"] not in names and not any_name:
            return Reply({"error": {"message": f"The model `{body['model']}` does not exist."}}, 404)
        for name, reason in (refuses or {}).items():
            if name in body:
                server.refused += 1
                return Reply({"error": {"message": reason}}, 400)
        with server.lock:
            server.bodies.append(body)
        said = say(body["messages"], len(server.bodies))
        parts = said if isinstance(said, dict) else {"text": said}
        if "code" in parts:
            return Reply(parts["data"], parts["code"])
        return Reply(anthropic(parts) if request.path.endswith("/messages") else openai(parts))

    with serving(answer) as server:
        server.bodies, server.refused = [], 0
        yield server


def openai(parts: dict[str, Any]) -> dict[str, Any]:
    choice = {
        "message": {"role": "assistant", "content": parts["text"], "reasoning_content": parts.get("thoughts")},
        "finish_reason": parts.get("finish", "stop"),
    }
    if "first" in parts:
        tops = [{"token": token, "logprob": p} for token, p in parts["first"].items()]
        choice["logprobs"] = {"content": [tops[0] | {"top_logprobs": tops}]}
    return {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": parts.get("tokens", 2)}}


def anthropic(parts: dict[str, Any]) -> dict[str, Any]:
    thoughts = [{"type": "thinking", "thinking": parts["thoughts"]}] if "thoughts" in parts else []
    return {
        "content": [*thoughts, {"type": "text", "text": parts["text"]}],
        "stop_reason": parts.get("finish", "end_turn"),
        "usage": {"input_tokens": 10, "output_tokens": parts.get("tokens", 2)},
    }
