"""The chat templates of TRL's wheel against ten conversations: the table of outcomes, and each outcome by the rule.

The rule is checked by rendering prefixes: where the generation prompt of a turn is how the text goes on, the response
begins at its end to the character, and goes to the end of the first stop behind what the message says.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
import template_matrix
from holdfast.data.conversation import stop_texts
from holdfast.records import RESPONSE_ROLES, Role

TABLE = Path(__file__).parents[1] / "golden" / "template_matrix.json"
EXPECTED = json.loads(TABLE.read_text(encoding="utf-8"))


def digest(tokenizer: Any) -> str:
    return hashlib.sha256(tokenizer.chat_template.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", template_matrix.names())
def test_every_cell_is_as_the_table_says_and_as_the_rule_says(name: str) -> None:
    tokenizer = template_matrix.tokenizer_of(name)
    recorded = EXPECTED.get(name, {})
    for conversation, row in template_matrix.CONVERSATIONS.items():
        outcome = template_matrix.cell(tokenizer, row)
        if recorded.get("sha256") == digest(tokenizer):  # a later TRL may have another text
            assert {k: outcome[k] for k in ("read", "refused") if k in outcome} == recorded[conversation], conversation
        if "read" in outcome:
            check_read(tokenizer, row, outcome)
        else:
            check_refused(tokenizer, row, outcome["refused"])


def check_read(tokenizer: Any, row: dict[str, Any], outcome: dict[str, Any]) -> None:
    """The text is the template's own, and paid is what the generation prompt leaves to write."""
    text = "".join(span.text for span in outcome["spans"])
    assert outcome["ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
    form = next(form for form in template_matrix.renderings(tokenizer, row) if same_text(tokenizer, form[0], text))
    roles = [span.role for span in outcome["spans"] for _ in span.text]
    for turn in row["messages"]:
        for piece in template_matrix.said(turn):
            at = text.find(piece)
            inside = {roles[at + i] for i in range(len(piece))} if at >= 0 else set()
            if turn["role"] == "assistant":  # earlier thoughts may be dropped
                assert inside <= {Role.ASSISTANT} or inside <= {Role.THINK}
            else:
                assert inside == {Role[turn["role"].upper()]}
    exact = [check_begin_and_end(tokenizer, row, text, roles, prompt, i) for prompt, i in form[1]]
    assert len(exact) == sum(turn["role"] == "assistant" for turn in row["messages"])


def same_text(tokenizer: Any, rendered: str, text: str) -> bool:
    """Equal, but for a stop behind the last response where the template prints none."""
    stops = stop_texts(tokenizer)
    return rendered == text or any(
        text == rendered.rstrip() + stop + rendered[len(rendered.rstrip()) :] for stop in stops
    )


def check_begin_and_end(
    tokenizer: Any, row: dict[str, Any], text: str, roles: list[Role], prompt: str, number: int
) -> bool:
    """Whether the prompt of a turn is how the text goes on; then its end is where the response begins."""
    if not text.startswith(prompt):
        return False
    begin = len(prompt)
    if "add_generation_prompt" in tokenizer.chat_template:
        assert roles[begin - 1] not in RESPONSE_ROLES
        assert roles[begin] in RESPONSE_ROLES
    pieces = template_matrix.said(row["messages"][number])
    if not pieces or "tool_calls" in row["messages"][number]:
        return True
    end = text.find(pieces[-1], begin) + len(pieces[-1])
    assert all(role in RESPONSE_ROLES for role in roles[begin:end])
    stop = min((at + len(stop) for stop in stop_texts(tokenizer) if (at := text.find(stop, end)) >= 0), default=None)
    behind = row["messages"][number + 1 :]
    following = [at for turn in behind for piece in template_matrix.said(turn) if (at := text.find(piece, end)) >= 0]
    if stop is not None and stop <= min(following, default=len(text)):
        assert {*roles[end:stop]} == {Role.EOS}
        assert stop == len(roles) or roles[stop] not in RESPONSE_ROLES
    return True


def check_refused(tokenizer: Any, row: dict[str, Any], message: str) -> None:
    """The template refuses every form in its own words, or no form prints all that the row says."""
    texts = [text for text, _ in template_matrix.renderings(tokenizer, row)]
    if not texts:
        assert "refuses these messages" in message or "no trace" in message or "drops" in message
        return
    last = max(i for i, turn in enumerate(row["messages"]) if turn["role"] == "assistant")
    needed = [piece for i, turn in enumerate(row["messages"]) for piece in template_matrix.said(turn)
              if turn["role"] != "assistant" or i == last or not turn.get("reasoning_content")]  # fmt: skip
    calls = [call for turn in row["messages"] for call in turn.get("tool_calls", ())]
    for text in texts:
        absent = [piece for piece in needed if piece not in text]
        without_tools = "tools" in row and "Weather of a place." not in text
        few = text.count("weather") < len(calls) or any(place not in behind(text, row) for place in places(calls))
        thoughtless = any(t.get("reasoning_content", "") not in text for t in row["messages"])
        python = "{'place'" in text or "None" in text
        assert absent or without_tools or few or thoughtless or python, (message, text)


def places(calls: list[dict[str, Any]]) -> list[str]:
    return ["Oslo" if "Oslo" in json.dumps(call) else "Rome" for call in calls]


def behind(text: str, row: dict[str, Any]) -> str:
    """What follows the question, which names the places, too."""
    return text.partition(row["messages"][0]["content"])[2]


@pytest.mark.parametrize("name", [name for name in template_matrix.names() if name.endswith("_training")])
def test_what_is_paid_is_what_trls_training_forms_mark(name: str) -> None:
    """TRL's markers also take in what the generation prompt gives (headers, an opened thought) and white space behind
    the stop; they leave out nothing that is paid here.
    """
    tokenizer = template_matrix.tokenizer_of(name)
    for conversation, row in template_matrix.CONVERSATIONS.items():
        outcome = template_matrix.cell(tokenizer, row)
        theirs = template_matrix.marked_by_trl(tokenizer, row, outcome["ids"]) if "read" in outcome else None
        if theirs is None:
            continue
        roles = [span.role for span in outcome["spans"] for _ in span.text]
        text = "".join(span.text for span in outcome["spans"])
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        ours = [roles[max(end - 1, 0)] in RESPONSE_ROLES for _, end in offsets]
        stops = [roles[max(end - 1, 0)] is Role.EOS for _, end in offsets]
        if not name.startswith("diffusion_gemma"):  # it leaves <|tool_response>, which stops generation, unmarked
            assert not [i for i, paid in enumerate(ours) if paid and not theirs[i]], conversation
        for i, marked in enumerate(theirs):
            if marked and not ours[i]:
                before = next((j for j in range(i, -1, -1) if ours[j] or not theirs[j]), 0)
                after = next((j for j in range(i, len(ours)) if ours[j]), 0)
                in_prompt = ours[after] and all(theirs[i:after])
                assert in_prompt or stops[before], (conversation, i)
