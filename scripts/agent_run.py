"""Agent rows, a chat template for them, and the NLL of each role under a model: the figures of docs/roles.md.

    python scripts/agent_run.py rows FOLDER
    holdfast tune --model MODEL --data FOLDER/train.jsonl --eval-share 0 \\
        --chat-template FOLDER/agent.jinja --lora-rank 8 --max-steps 16 --batch-size 8 --output FOLDER/run
    python scripts/agent_run.py nll FOLDER MODEL FOLDER/run
"""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEMPLATE = """{%- if tools -%}<|im_start|>system
You may call these tools with <tool_call>{"name": ..., "arguments": ...}</tool_call>:
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif -%}
{%- for m in messages -%}<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>
{% endif -%}
{{ m.content or '' }}{% for call in m.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}"""
PLACES = [
    "Oslo",
    "Rome",
    "Lima",
    "Cairo",
    "Perth",
    "Quito",
    "Turin",
    "Ghent",
    "Malmo",
    "Porto",
    "Kyoto",
    "Davos",
    "Sofia",
    "Dakar",
]
SKIES = {"rain": "Take an umbrella.", "sun": "No coat is needed.", "snow": "Wear warm boots.", "fog": "Drive slowly."}


def _tool(name: str, **properties: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [_tool("weather", place="string", day="integer"), _tool("convert", amount="number", to="string")]


def rows(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Questions that one call answers, with a thought before the call and one before the answer."""
    draw = random.Random(seed)
    for _ in range(count):
        if draw.random() < 0.5:
            place, day, sky = draw.choice(PLACES), draw.randint(1, 7), draw.choice(list(SKIES))
            question = f"What should I wear in {place} in {day} days?"
            call, result = ("weather", {"place": place, "day": day}), json.dumps({"sky": sky})
            thought, answer = f"The forecast for {place} decides.", SKIES[sky]
        else:
            amount, unit = draw.randint(2, 90), draw.choice(("miles", "pounds", "feet"))
            question = f"How many {unit} are {amount} of the metric unit?"
            call, result = ("convert", {"amount": amount, "to": unit}), str(amount * 2)
            thought, answer = f"A conversion to {unit} gives it.", f"They are {amount * 2} {unit}."
        function = {"name": call[0], "arguments": call[1]}
        yield {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": None, "reasoning_content": thought,
                 "tool_calls": [{"type": "function", "function": function}]},
                {"role": "tool", "name": call[0], "content": result},
                {"role": "assistant", "content": answer, "reasoning_content": f"The tool says {result}."},
            ],
            "tools": TOOLS,
        }  # fmt: skip


def write(folder: Path) -> None:
    """Rows to train on, rows held out, and the template."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.jinja").write_text(TEMPLATE, encoding="utf-8")
    for name, count, seed in (("train", 240, 1), ("held_out", 8, 2)):
        lines = [json.dumps(row) + "\n" for row in rows(count, seed)]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def nlls(folder: Path, model: str) -> dict[str, tuple[int, float]]:
    """Count and mean NLL of the held-out tokens of each role."""
    from holdfast import lm
    from holdfast.data.chat_template import prepare
    from holdfast.data.examples import load_examples
    from holdfast.lm.batched import sequence_nlls
    from holdfast.records import Role
    from holdfast.tune.roles import tokenize
    from holdfast.tune.weights import role_weights

    loaded = lm.load(model)
    prepare(loaded.tokenizer, str(folder / "agent.jinja"))
    examples = load_examples(str(folder / "held_out.jsonl"))
    tokens, _ = tokenize(examples, loaded.tokenizer, role_weights(1, 1), max_length=loaded.context)
    scored = sequence_nlls(
        loaded.model, [t.ids.tolist() for t in tokens], loaded.pad_id, batch_size=4, context=loaded.context
    )
    by_role: dict[str, list[float]] = defaultdict(list)
    for one, values in zip(tokens, scored, strict=True):
        for role, value in zip(one.roles[1:].tolist(), values[1:].tolist(), strict=True):
            by_role[Role(role).label].append(value)
    return {role: (len(values), sum(values) / len(values)) for role, values in sorted(by_role.items())}


def main() -> None:
    """``rows FOLDER``, or ``nll FOLDER MODEL ...``, which prints one column of NLLs per model."""
    if sys.argv[1] == "rows":
        write(Path(sys.argv[2]))
        return
    columns = [nlls(Path(sys.argv[2]), model) for model in sys.argv[3:]]
    for role, (count, _) in columns[0].items():
        print(f"{role:<12} {count:>6}  " + "  ".join(f"{column[role][1]:.4f}" for column in columns))


if __name__ == "__main__":
    main()
