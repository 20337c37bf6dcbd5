"""What ``holdfast demo`` shows, on the terminal and at the top of its page: one question in several wordings, the test
scores, and what may be said about them.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.tables.record import Cell, Column, MeanSd, Table
from holdfast.tables.text import counted

_SCORED = {
    "response_nll": Column("response NLL"),
    "prompt_nll": Column("prompt NLL"),
    "new items": Column("new items %", 1),
    "new wordings": Column("new wordings %", 1),
    "posix": Column("POSIX wording", 2),
}
"""What is shown of the test split; shares become percent."""
ASKED = "What the demo shows"
"""Title of the table of sentences."""


def of_demo(summary: dict[str, Any]) -> list[Table]:
    """Return one question with the answers of both models, the sentences, and the mean of every test score over the
    seeds of a setting with its standard deviation.
    """
    rows: list[list[Cell]] = []
    for name, seeds in summary["scores"].items():
        rows.append([name, *(_over(seeds, key, column) for key, column in _SCORED.items())])
    columns = [Column("(prompt, response)", kind="code"), *_SCORED.values()]
    caption = (
        "Means over seeds; after ±: the standard deviation between them. New items: questions never trained on, in "
        "known wordings; new wordings: in wordings never trained on. NLL and POSIX: nats per token, smaller is better."
    )
    return [*_wordings(summary), *_sentences(summary), Table("Test scores", columns, rows, caption)]


def sentences(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what may be said, as questions and answers, in the order in which they are told."""
    told: list[tuple[str, str]] = []
    if wording := summary.get("wording"):
        told.append(("Does the wording matter?", _changes(wording["base"], wording["tuned"])))
    if "study" in summary:
        told.append(("Which weights are best?", summary["study"]["finding"]))
        told.append(("What would picking the best on the test split have sold you?", _luck(summary["study"])))
    if decided := summary.get("decided"):
        told.append(("What does a prompt weight do? (Asked before anything was trained.)", _decided(decided)))
    if transfer := summary.get("cross_task"):
        told.append(("Does an example of another task help?", f"pocket:tasks: {transfer['line']}."))
    return told


def _sentences(summary: dict[str, Any]) -> list[Table]:
    told: list[list[Cell]] = [[question, answer] for question, answer in sentences(summary)]
    return [Table(ASKED, [Column("question"), Column("answer")], told)] if len(told) > 1 else []


def _wordings(summary: dict[str, Any]) -> list[Table]:
    if not summary.get("wording"):
        return []
    asked, setting = summary["wording"]["question"], summary["wording"]["setting"]
    most = {who: _most_frequent(asked["rows"], who) for who in ("base", "tuned")}
    rows: list[list[Cell]] = []
    for row in asked["rows"][: asked["show"]]:
        marked = (f"{row[who]}{'' if row[who] == most[who] else ' *'}" for who in ("base", "tuned"))
        rows.append([row["prompt"], *marked])
    columns = [Column(title, kind="code") for title in ("wording", "base model", f"tuned at {setting}")]
    caption = (
        f"* not the most frequent answer to the {len(asked['rows'])} wordings of this question. "
        f"The right answer: {asked['target']}."
    )
    return [Table(f"One question in {counted(len(rows), 'wording')}", columns, rows, caption)]


def _most_frequent(rows: Sequence[Mapping[str, Any]], who: str) -> Any:
    return Counter(row[who] for row in rows).most_common(1)[0][0]


def _changes(base: Mapping[str, Any], tuned: Mapping[str, Any]) -> str:
    return (
        f"The answer changes with the wording in {base['changed']} of {base['sets']} questions before tuning, and in "
        f"{tuned['changed']} of {tuned['sets']} after. POSIX, in nats per token: {base['posix']:.2f} before, "
        f"{tuned['posix']:.2f} after."
    )


def _luck(study: Mapping[str, Any]) -> str:
    selection = next(iter(study["groups"].values()))["selection"]
    naive, conventional = selection.get("naive") or {}, selection.get("conventional")
    if not naive or naive["setting_name"] == conventional:
        return f"Nothing: the best on the test split is conventional tuning itself, {conventional}."
    points, luck = 100 * naive["gain"], 100 * naive["luck"]
    sold = f"Picking {naive['setting_name']}, the best on the test split, would have sold you {points:+.1f} points"
    if selection.get("claim") == "none":
        return f"{sold} of luck. If all settings were equally good, the luckiest would still appear {luck:.1f} better."
    return f"{sold}, of which {luck:.1f} are luck on average."


def _decided(decided: Mapping[str, Any]) -> str:
    place = f"Weighing prompts like responses, {decided['setting']} instead of {decided['conventional']},"
    change = f"the prompt NLL of the test split by {abs(decided['difference']):.2f} nats per token"
    if decided["low"] is None:
        return f"{place} moves {change}. With one seed, nothing can be claimed."
    if decided["low"] <= 0 <= decided["high"]:
        return f"{place} moves {change}: not beyond noise."
    low, high = sorted(map(abs, (decided["low"], decided["high"])))
    verb = "lowers" if decided["difference"] < 0 else "raises"
    return f"{place} {verb} {change} [{low:.2f}, {high:.2f}] over {decided['seeds']} seeds, beyond noise."


def _over(seeds: Sequence[dict[str, Any]], key: str, column: Column) -> MeanSd:
    """Return mean and standard deviation of a score over seeds; one seed has no deviation."""
    values = [(100 if column.title.endswith("%") else 1) * scores[key] for scores in seeds]
    return MeanSd(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
