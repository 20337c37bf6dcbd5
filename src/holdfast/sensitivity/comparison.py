"""Two runs over the same sets: is B steadier than A? Paired over sets, never over prompts.

difference of a view = mean over sets of psi_B - psi_A, with a bootstrap interval and a sign-flip permutation p-value

Where one of them has no psi (a chat endpoint), they are compared by how often their answers change (``differ``), less
the noise where both tell it (``effect``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from holdfast.compare import Checks, Finished, finished, is_number, paired, refuse_unlike, value_at, write_files
from holdfast.config import CompareConfig
from holdfast.errors import HoldfastError, NotComparableError, from_json
from holdfast.runs import to_json
from holdfast.stats import wide_bootstrap
from holdfast.tables import lines, with_tables
from holdfast.tables.sensitivity import distinct_views
from holdfast.tables.text import counted

_LISTED = 10
_SETS, _LENGTH = "sets", "length of responses (--max-new-tokens)"
_TEMPLATE = ("resolved", "template_sha")
_BY_PSI: Checks = {
    _SETS: ("resolved", "sets_digest"),
    _LENGTH: ("max_new_tokens",),
    "chat template": _TEMPLATE,
    "definition": ("definition",),
}
"""What two runs must share to be compared: name -> place in the summary."""


def compare(config: CompareConfig) -> dict[str, Any]:
    """Compare two runs.

    Returns:
        ``by_kind``: per view both means, the difference with interval and p-value; ``moved_most``: the sets that moved
        most.

    Raises:
        NotComparableError: other sets, length, template, date in it, or definition; by answers also another equality,
            another way of reading, or noise that one run alone tells. Other exemplars are allowed, and noted: their
            effect is a question.
        HoldfastError: no finished sensitivity run there.

    >>> from holdfast.sensitivity import CompareConfig, compare
    >>> change = compare(CompareConfig(run_a="runs/posix", run_b="runs/posix-tuned", json=True))["by_kind"]["all"]
    >>> change["sets"], change["low"] <= change["difference"] <= change["high"]
    (4, True)
    """
    if config.dry_run:
        raise HoldfastError("--dry-run: a comparison reads two runs and costs nothing; leave it out")
    a, b = open_finished(config.run_a), open_finished(config.run_b)
    check_alike(a, b)
    summary = with_tables({"command": "sensitivity compare"} | difference(a, b, config.seed, config.bootstrap))
    if config.output:
        write_files(config.output, {"comparison.json": to_json(summary, indent=1) + "\n"})
    if not config.json:
        print(as_text(summary))
    return summary


def difference(a: Finished, b: Finished, seed: int, draws: int) -> dict[str, Any]:
    """Return what ``compare`` returns, for two runs that are comparable."""
    measure = measure_of(a, b)
    by_kind: dict[str, Any] = {}
    moved_by_view: dict[str, list[dict[str, Any]]] = {}
    for view in views(a):
        psi_a, psi_b = values(a, view, measure), values(b, view, measure)
        pairs = [(psi_a[set_id], psi_b[set_id]) for set_id in psi_a]
        test = paired([p for p, _ in pairs], [q for _, q in pairs], seed, draws)
        if measure != "psi":
            test["low"], test["high"] = wide_bootstrap([q - p for p, q in pairs], seed, draws)
        if not all(is_number(test[key]) for key in ("difference", "low", "high")):
            raise HoldfastError(
                f"'{view}': the values of {measure} in {a.path} and {b.path} are too large to be compared; the rows "
                "are damaged"
            )
        by_kind[view] = test
        moved_by_view[view] = [
            {"set_id": s, "a": psi_a[s], "b": psi_b[s], "difference": psi_b[s] - psi_a[s]} for s in psi_a
        ]
    moved: list[dict[str, Any]] = []
    for view in distinct_views(moved_by_view):  # "all" lists the same sets again where there is but one kind
        moved += [{"kind": view} | row for row in moved_by_view[view] if row["difference"]]
    moved.sort(key=lambda row: -abs(row["difference"]))
    notes = [f"{name} differ: {x} and {y}" for name, x, y in _noted(a, b) if x != y] + _cautions(a, b, measure)
    runs = {"run_a": a.path, "run_b": b.path, "notes": notes}
    return runs | {"by_kind": by_kind, "moved_most": moved[:_LISTED], "measure": measure}


def measure_of(a: Finished, b: Finished) -> str:
    """Return what two runs are compared by: psi where both have it, else how often answers change, less the noise
    (``effect``) where both tell it (``differ`` where not).
    """
    if not (is_by_answers(a) or is_by_answers(b)):
        return "psi"
    return "differ" if 1 in (_repeats(a), _repeats(b)) else "effect"


def is_by_answers(run: Finished) -> bool:
    """Return whether a run has answers only, as that of a chat endpoint."""
    return bool(run.summary.get("psi_reason"))


def views(run: Finished) -> dict[str, int]:
    """Return the views of a run, and over how many sets each is."""
    if is_by_answers(run):
        return {view: change["prompts"] for view, change in run.summary["answer_changes"].items()}
    return {view: psi["sets"] for view, psi in run.summary["posix"].items()}


def open_finished(path: str) -> Finished:
    """Read a run directory.

    Raises:
        HoldfastError: it is no sensitivity run, not finished, or damaged: a file was cut, or does not hold what such a
            run writes.
    """
    run = finished(path, "sensitivity run")
    _check_summary(Path(path) / "summary.json", run.summary)
    _check_rows(Path(path) / "rows.jsonl", run, "differ" if is_by_answers(run) else "psi")
    return run


def values(run: Finished, view: str, measure: str) -> dict[str, float]:
    """Return the measure by set id."""
    place = _place(measure)
    return {row["set_id"]: row[place][view][measure] for row in run.rows if view in row["indices"]}


def _place(measure: str) -> str:
    return "indices" if measure == "psi" else "answers"


def _repeats(run: Finished) -> int | None:
    """Return how often a chat endpoint was asked for every answer; None for greedy answers, which have no noise."""
    repeats: int | None = run.summary.get("repeats")
    return repeats


def _check_summary(file: Path, summary: Any) -> None:
    """Check that what a comparison reads of a summary is there. Digests of what was not used are None."""
    resolved = summary.get("resolved") if isinstance(summary, dict) else None
    if not isinstance(resolved, dict):
        raise HoldfastError(f"{file}: not the summary of a sensitivity run (no 'resolved')")
    texts = {"model": summary, "backend": summary, "definition": summary, "sets_digest": resolved, "dtype": resolved}
    counts = ("sets", "max_new_tokens", "shots")
    wrong = [name for name, place in texts.items() if not (isinstance(place.get(name), str) and place[name])]
    wrong += [name for name in counts if type(summary.get(name)) is not int]
    wrong += [name for name in ("template_sha", "exemplars_sha") if not isinstance(resolved.get(name, 0), str | None)]
    place, count = ("answer_changes", "prompts") if summary.get("psi_reason") else ("posix", "sets")
    by_view = summary.get(place)
    if (
        not isinstance(by_view, dict)
        or not by_view
        or not all(isinstance(v, dict) and type(v.get(count)) is int for v in by_view.values())
    ):
        wrong.append(place)
    if place == "answer_changes":
        rule = summary.get("answers")
        wrong += [] if type(summary.get("repeats")) is int else ["repeats"]
        wrong += [] if isinstance(rule, dict) and isinstance(rule.get("rule"), str) else ["answers"]
    if wrong:
        raise HoldfastError(f"{file}: no {', '.join(wrong)} as a sensitivity run writes it; the file is damaged")


def _check_rows(file: Path, run: Finished, measure: str) -> None:
    """Check that the rows are those of the summary: all, each once, with the measure for every view that they have."""
    rows, sets, place = run.rows, run.summary["sets"], _place(measure)
    if len(rows) != sets:
        raise HoldfastError(
            f"{file}: {counted(len(rows), 'row')}, but {counted(sets, 'set')} were measured; the file "
            "was cut or changed"
        )
    names: set[str] = set()
    counts = dict.fromkeys(views(run), 0)
    for number, row in enumerate(rows, 1):
        name, indices = row.get("set_id"), row.get("indices")
        if not isinstance(name, str) or not isinstance(indices, dict):
            raise HoldfastError(f"{file}, row {number}: no set_id, or no indices, as a sensitivity run writes them")
        if name in names:
            raise HoldfastError(f"{file}, row {number}: set '{name}' stands there twice")
        names.add(name)
        for view in counts.keys() & indices.keys():
            measured = (row.get(place) or {}).get(view)
            if not isinstance(measured, dict) or not is_number(measured.get(measure)):
                raise HoldfastError(f"{file}, row {number}: {measure} of '{view}' is not a finite number")
            counts[view] += 1
    for view, count in counts.items():
        if count != views(run)[view]:
            raise HoldfastError(f"{file}: {count} rows with '{view}', but the summary says {views(run)[view]}")


def as_text(summary: dict[str, Any]) -> str:
    """Return the tables for people, with what else differs between the runs."""
    return "\n\n".join(filter(None, [lines(summary), "\n".join(summary["notes"])]))


def check_alike(a: Finished, b: Finished, gated: bool = False) -> None:
    """Refuse runs that measured different things.

    Args:
        a, b: the runs.
        gated: whether one is the other's baseline: then their exemplars must be the same, too.

    Raises:
        NotComparableError: says what differs.
    """
    measure = measure_of(a, b)
    refuse_unlike(a, b, _BY_PSI if measure == "psi" else _by_answers(a, b))
    if gated:
        is_mixed = is_by_answers(a) != is_by_answers(b)
        refuse_unlike(a, b, {"exemplars": _exemplars if is_mixed else ("resolved", "exemplars_sha")})
    dates = [run.summary["resolved"].get("date") for run in (a, b)]
    if all(dates) and dates[0] != dates[1]:
        raise NotComparableError(
            f"not comparable: the dates that the chat template prints differ: {dates[0]} in {a.path}, {dates[1]} in "
            f"{b.path}",
            hint="measure both with the same --date",
        )
    kinds = [", ".join(views(run)) for run in (a, b)]
    if kinds[0] != kinds[1]:
        raise NotComparableError(f"not comparable: {a.path} measured {kinds[0]}; {b.path} measured {kinds[1]}")
    for run in (a, b):
        if _place(measure) not in run.rows[0]:
            raise HoldfastError(
                f"{run.path}: this run of an earlier version does not say how often its answers differ",
                hint="measure it again; with --cache FOLDER/cache nothing is computed twice",
            )
        _check_rows(Path(run.path) / "rows.jsonl", run, measure)
    for view in views(a):
        if values(a, view, measure).keys() != values(b, view, measure).keys():
            raise HoldfastError(
                f"the rows of {a.path} and {b.path} with '{view}' are not of the same sets, though the summaries say so"
            )


def _by_answers(a: Finished, b: Finished) -> Checks:
    """Return what two runs must share to be compared by their answers."""
    is_mixed = is_by_answers(a) != is_by_answers(b)
    checks: dict[str, Sequence[str] | Callable[[Finished], Any]] = {name: _BY_PSI[name] for name in (_SETS, _LENGTH)}
    checks["system messages or --chat-template-kwargs"] = _instructions if is_mixed else _TEMPLATE
    checks["ways of comparing"] = _equality
    if any(run.summary.get("equality", "answer") == "answer" for run in (a, b)):
        checks["ways of reading (--answers)"] = ("answers", "rule")
    repeats = [_repeats(run) for run in (a, b)]
    if None not in repeats and repeats.count(1) == 1:
        checks["numbers of repeats, of which 1 tells no noise,"] = ("repeats",)
    return checks


def _instructions(run: Finished) -> str:
    """Return what is said to a chat model besides the prompts, as far as a run tells it; an endpoint's template is its
    own.
    """
    if not run.summary["chat"]:
        return "no chat template (--chat)"
    options = run.config.get("chat_template_kwargs")
    return f"{run.config.get('system')!r} with {from_json(options) if isinstance(options, str) else {}}"


def _exemplars(run: Finished) -> str:
    return ", ".join(str(run.config.get(name)) for name in ("shots", "shots_data", "shots_layout"))


def _equality(run: Finished) -> str:
    """Return when two answers of a run are equal."""
    equality = str(run.summary.get("equality", "answer"))
    parts = {"meaning": ("same_meaning", "meaning_model"), "judge": ("judge_model",)}.get(equality, ())
    return " ".join([f"--equality {equality}", *(str(run.config.get(name)) for name in parts)])


def _cautions(a: Finished, b: Finished, measure: str) -> list[str]:
    """Return what is to be kept in mind of a comparison by answers."""
    if measure == "psi":
        return []
    greedy = [run.path for run in (a, b) if not is_by_answers(run)]
    notes = [f"the answers of {path} are greedy and count as free of noise" for path in greedy]
    if measure == "differ":
        notes.append("noise is not taken off, because each wording was asked once: --repeats 3 tells it")
    return notes


def _noted(a: Finished, b: Finished) -> list[tuple[str, Any, Any]]:
    keys = {
        "models": ("model",),
        "back ends": ("backend",),
        "exemplars (--shots)": ("shots",),
        "types": ("resolved", "dtype"),
    }
    temperatures = [(run.summary.get("request") or {}).get("temperature", 0) for run in (a, b)]
    return [
        *((name, value_at(a, key), value_at(b, key)) for name, key in keys.items()),
        ("temperatures", *temperatures),
    ]
