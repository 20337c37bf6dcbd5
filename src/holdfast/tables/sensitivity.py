"""The tables of ``sensitivity run``: POSIX by kind of variant, all indices, accuracy over wordings; of its rows: every
set, the responses of one set; and those of two runs compared.
"""

from __future__ import annotations

import itertools
import math
import operator
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.tables.record import Cell, Column, Interval, Table
from holdfast.tables.text import counted

ALL = "all"
"""The view over all variants of a set."""

INDICES = {
    "psi": "how far log-probs move, nats per token",
    "psi_signed": "the same with its sign (positive: answers are likelier after their own prompt)",
    "unique_responses": "distinct responses per set",
    "response_entropy": "entropy of the responses, nats",
    "logp_spread": "spread of log-probs of one response",
    "variation_ratio": "share of responses that are not the most frequent",
    "consistency_rate": "share of equal pairs of answers",
    "answered": "share of responses that could be read as an answer",
}
MEASURES = {
    "psi": ("POSIX", "nats per token"),
    "differ": ("Answers that change", "of the pairs of wordings"),
    "effect": ("Answers that change, less the noise", "of the pairs of wordings"),
}
"""What two runs are compared by -> its title, and what follows a number of it."""
_FEW_SETS = 10
"""With fewer sets than this a bootstrap interval is only a rough one: it draws from too few values."""
_TARGETS = {
    "avg_p": "mean accuracy",
    "max_p": "best variant",
    "spread": "best minus worst",
    "sat": "saturation",
    "cps": "combined (CPS)",
    "prompt_sensi_score": "PromptSensiScore",
}


def of_run(summary: dict[str, Any]) -> list[Table]:
    """Return POSIX, all indices and accuracy over wordings, each where there are rows of it."""
    views = distinct_views(summary["answer_changes"]) if "answer_changes" in summary else views_of(summary)
    tables = (_changes(summary, views), _posix(summary, views), _indices(summary, views), _accuracy(summary, views))
    return [table for table in tables if table.rows]


def of_comparison(summary: dict[str, Any]) -> list[Table]:
    """Return POSIX, or how often answers change, of both runs by kind of variant, and the sets that moved most."""
    title, unit = MEASURES[summary.get("measure", "psi")]
    failed, by_kind = summary.get("failed"), summary["by_kind"]
    rows: list[list[Cell]] = []
    for kind, row in by_kind.items():
        change = Interval(row["difference"], row["low"], row["high"])
        judged = [] if failed is None else ["worse" if kind in failed else "ok"]
        rows.append([kind, row["a"], row["b"], change, row["p"], row["sets"], *judged])
    both = [Column("kind"), Column("A", 4), Column("B", 4), Column("B - A", 4)]
    columns = [*both, Column("p", 4), Column("sets"), *([] if failed is None else [Column("verdict")])]
    units = "Nats per token" if unit == "nats per token" else f"Shares {unit}"
    caption = f"{units}. In brackets: 95 % intervals over sets.{_few(list(by_kind.values()))}"
    keys = operator.itemgetter("set_id", "kind", "a", "b", "difference")
    moved = Table(
        "Sets that moved most", [Column("set", kind="code"), *both], list(map(keys, summary.get("moved_most", [])))
    )
    tables = [Table(f"{title}{',' if ',' in title else ''} of both", columns, rows, caption), moved]
    return [table for table in tables if table.rows]


def views_of(summary: dict[str, Any]) -> list[str]:
    """Return the views with an estimate; ``all`` is left out where it is the same as the only kind."""
    return distinct_views(summary.get("posix", {}))


def distinct_views(by_view: Mapping[str, Any]) -> list[str]:
    """Return the views of a mapping, without ``all`` where its entry is the same as that of the only kind."""
    kinds = [view for view in by_view if view != ALL]
    return kinds if len(kinds) == 1 and by_view.get(ALL) == by_view[kinds[0]] else list(by_view)


def psi(row: Mapping[str, Any]) -> float:
    """Return psi of a set over all its variants, or the mean over its kinds where only pairs within a kind were scored;
    NaN where one of these has no value.
    """
    views = row["indices"]
    values = [views[ALL]["psi"]] if ALL in views else [view["psi"] for view in views.values()]
    return math.nan if None in values else statistics.fmean(values)


def flips(row: Mapping[str, Any], name: str = "differ") -> float:
    """Return the share of the pairs of wordings of a set whose answers differ, over all its variants, or the mean over
    its kinds; NaN where answers were not compared. ``name``: ``effect`` for what is left of it without the noise.
    """
    views = row.get("answers") or {}
    values = [views[ALL].get(name)] if ALL in views else [view.get(name) for view in views.values()]
    return math.nan if None in values or not values else statistics.fmean(values)


def has_answers_only(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the rows are of a chat endpoint: without any psi, but with how often answers differ."""
    return all(math.isnan(psi(row)) and not math.isnan(flips(row)) for row in rows)


def _differ(row: Mapping[str, Any], view: str) -> float | None:
    share: float | None = (row.get("answers") or {}).get(view, {}).get("differ")
    return share


def every_set(ranked: Sequence[dict[str, Any]]) -> Table:
    """Return a row for every set, in the order of ``ranked``: its answers, then its psi, over every kind of any set; of
    a chat endpoint, which has no psi, how often its answers differ.
    """
    by_answers = has_answers_only(ranked)
    views = dict.fromkeys(itertools.chain.from_iterable(row["indices"] for row in ranked))
    kinds = [view for view in views if view != ALL]
    kinds = kinds if len(kinds) > 1 else []
    columns = [
        Column("set", kind="code"),
        Column("right answers"),
        Column("most frequent response", kind="code"),
        Column("distinct responses", 0),
        Column("prompts"),
        *map(Column, ("psi", *map("psi, {}".format, kinds)) if not by_answers else ()),
        *map(Column, ("wordings differ", "repeats differ", *map("wordings differ, {}".format, kinds)) * by_answers),
    ]
    rows: list[list[Cell]] = []
    for row in ranked:
        whole = row["indices"].get(ALL) or next(iter(row["indices"].values()))
        variants = row.get("variants", [])
        right = [v["right"] for v in variants if v.get("right") is not None]
        if by_answers:
            moved = [flips(row), flips(row, "noise"), *(_differ(row, kind) for kind in kinds)]
        else:
            moved = [psi(row), *(row["indices"].get(kind, {}).get("psi") for kind in kinds)]
        answers = f"{sum(right)} of {len(right)}" if right else None
        response = _most_frequent([str(v.get("response", "")) for v in variants])
        about = [answers, response, whole.get("unique_responses"), row.get("prompts")]
        rows.append([str(row["set_id"]), *about, *moved])
    return Table("All sets", columns, rows, filterable=len(rows) > 8)


def responses(row: Mapping[str, Any]) -> Table:
    """Return the responses to every variant of one set, and how far each of them moves log-probs."""
    moved = attribution(row)
    by_prompt, by_response = moved.get("by_prompt", {}), moved.get("by_response", {})
    rows: list[list[Cell]] = []
    for v in row.get("variants", []):
        name = str(v.get("variant_id"))
        right = None if v.get("right") is None else "right" if v["right"] else "wrong"
        logp = v["logp"] / v["tokens"] if v.get("tokens") and v.get("logp") is not None else None
        shifts = [by_prompt.get(name), by_response.get(name)]
        rows.append([name, v.get("kind"), v.get("response"), v.get("answer"), right, logp, *shifts])
    columns = [
        Column("variant", kind="code"),
        Column("kind"),
        Column("response", kind="code"),
        Column("read as", kind="code"),
        Column("answer is"),
        Column("log-prob per token"),
        Column("shift as prompt", hint="mean shift of foreign responses after this prompt"),
        Column("shift as response", hint="mean shift of this response after foreign prompts"),
    ]
    return Table(f"Responses: {row['set_id']}", columns, rows)


def attribution(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return which prompts, responses and tokens of a set moved, over all its variants or else of its first kind."""
    views = row.get("attribution") or {}
    moved: dict[str, Any] = views.get(ALL) or next(iter(views.values()), {})
    return moved


def shared_sets(runs: Sequence[tuple[str, Mapping[str, float]]], sets: Sequence[str]) -> Table:
    """Return psi of the sets that several runs share, one column per run (its title, and its psi by set)."""
    rows: list[list[Cell]] = []
    for name in sets:
        rows.append([name, *(psi_by_set[name] for _, psi_by_set in runs)])
    columns = [Column("set", kind="code"), *(Column(title) for title, _ in runs)]
    return Table("Psi of every shared set", columns, rows, filterable=len(rows) > 8)


def _changes(summary: dict[str, Any], views: Sequence[str]) -> Table:
    """Return how often answers of a chat endpoint change with the wording, and how often without."""
    rows: list[list[Cell]] = []
    for view in views:
        if change := summary.get("answer_changes", {}).get(view):
            shares = [Interval.of(change[name], "mean") for name in ("differ", "noise", "effect")]
            rows.append([view, f"{change['changed']} of {change['prompts']}", *shares])
    counts = [{"sets": summary["answer_changes"][view]["prompts"]} for view in views if "answer_changes" in summary]
    names = ("variants", "prompts whose answer changes", "wordings differ", "repeats differ", "effect of the wording")
    caption = (
        "How often answers to two wordings of a prompt differ; how often two answers to one wording do (noise); and "
        "the difference. Shares, with 95 % intervals over prompts; repeats need --repeats 2 or more. An answer that "
        f"cannot be read differs from every other.{_few(counts)}"
    )
    return Table("Answers that change", list(map(Column, names)), rows, caption)


def _posix(summary: dict[str, Any], views: Sequence[str]) -> Table:
    posix = summary.get("posix", {})
    rows: list[list[Cell]] = [[v, Interval.of(posix[v], "mean"), posix[v]["sets"]] for v in views if v in posix]
    columns = [Column("variants"), Column("POSIX, nats per token", 4), Column("sets")]
    caption = "The mean of psi over sets. In brackets: 95 % bootstrap intervals over sets."
    return Table("POSIX", columns, rows, caption + _few([posix[v] for v in views if v in posix]))


def over_sets(sets_by_view: Mapping[str, int]) -> str:
    """Return over how many sets estimates are, by view where these differ: "2 sets (spelling) and 3 sets (casing)"."""
    if len(set(sets_by_view.values())) < 2:
        return counted(next(iter(sets_by_view.values()), 0), "set")
    each = [f"{counted(count, 'set')} ({view})" for view, count in sets_by_view.items()]
    return f"{', '.join(each[:-1])} and {each[-1]}"


def _few(estimates: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence for the caption where an interval is over few sets."""
    fewest = min((one["sets"] for one in estimates), default=_FEW_SETS)
    return f" Few sets ({fewest}): such an interval is only a rough one." if fewest < _FEW_SETS else ""


def _indices(summary: dict[str, Any], views: Sequence[str]) -> Table:
    indices = summary.get("indices", {})
    by_view = {view: indices[view] for view in views if view in indices}
    rows: list[list[Cell]] = []
    for name, meaning in INDICES.items():
        if any(name in estimates for estimates in by_view.values()):
            means = [Interval.of(estimates.get(name), "mean") for estimates in by_view.values()]
            rows.append([name, *means, meaning])
    columns = [Column("index", kind="code"), *map(Column, by_view), Column("what it is")]
    sets = {view: _sets_of(estimates, summary) for view, estimates in by_view.items()}
    return Table("All indices", columns, rows, f"Means with 95 % bootstrap intervals over {over_sets(sets)}.")


def _sets_of(estimates: Mapping[str, Any], summary: Mapping[str, Any]) -> int:
    """Return over how many sets the estimates of a view are: all have the same, psi or not."""
    return int(next((one["sets"] for one in estimates.values() if "sets" in one), summary.get("sets", 0)))


def _accuracy(summary: dict[str, Any], views: Sequence[str]) -> Table:
    rows: list[list[Cell]] = []
    for view in views:
        if target := summary.get("targets", {}).get(view):
            rows.append([view, target.get("items"), *map(target.get, _TARGETS)])
    columns = [Column("variants"), Column("items"), *map(Column, _TARGETS.values())]
    return Table("Accuracy over wordings", columns, rows, "Shares of right answers; the same items in every wording.")


def _most_frequent(answers: Sequence[str]) -> str | None:
    return max(dict.fromkeys(answers), key=answers.count) if answers else None
