"""Two runs over the same sets: is B steadier than A? Paired over sets, never over prompts.

difference of a view = mean over sets of psi_B - psi_A, with a bootstrap interval and a sign-flip permutation p-value
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.compare import Checks, Finished, finished, is_number, paired, refuse_unlike, value_at, write_files
from holdfast.config import CompareConfig
from holdfast.errors import HoldfastError, NotComparableError
from holdfast.runs import to_json
from holdfast.tables import lines, with_tables
from holdfast.tables.sensitivity import distinct_views

_LISTED = 10
MEASURED = {
    "sets": ("resolved", "sets_digest"),
    "length of responses (--max-new-tokens)": ("max_new_tokens",),
    "chat template": ("resolved", "template_sha"),
    "definition": ("definition",),
}
"""What two runs must share to be compared: name -> place in the summary."""
GATED = MEASURED | {"exemplars": ("resolved", "exemplars_sha")}
"""What they must share for one to be the other's baseline."""


def compare(config: CompareConfig) -> dict[str, Any]:
    """Compare two runs.

    Returns:
        ``by_kind``: per view both means, the difference with interval and p-value; ``moved_most``: the sets that moved
        most.

    Raises:
        NotComparableError: other sets, length, template or definition. Other exemplars are allowed, and noted: their
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
    check_alike(a, b, MEASURED)
    summary = with_tables({"command": "sensitivity compare"} | difference(a, b, config.seed, config.bootstrap))
    if config.output:
        write_files(config.output, {"comparison.json": to_json(summary, indent=1) + "\n"})
    if not config.json:
        print(as_text(summary))
    return summary


def difference(a: Finished, b: Finished, seed: int, draws: int) -> dict[str, Any]:
    """Return what ``compare`` returns, for two runs that are comparable."""
    by_kind: dict[str, Any] = {}
    moved_by_view: dict[str, list[dict[str, Any]]] = {}
    for view in a.summary["posix"]:
        psi_a, psi_b = psi(a, view), psi(b, view)
        pairs = [(psi_a[set_id], psi_b[set_id]) for set_id in psi_a]
        test = paired([p for p, _ in pairs], [q for _, q in pairs], seed, draws)
        if not all(is_number(test[key]) for key in ("difference", "low", "high")):
            raise HoldfastError(
                f"'{view}': the values of psi in {a.path} and {b.path} are too large to be compared; the rows are "
                "damaged"
            )
        by_kind[view] = test
        moved_by_view[view] = [
            {"set_id": s, "a": psi_a[s], "b": psi_b[s], "difference": psi_b[s] - psi_a[s]} for s in psi_a
        ]
    moved: list[dict[str, Any]] = []
    for view in distinct_views(moved_by_view):  # "all" lists the same sets again where there is but one kind
        moved += [{"kind": view} | row for row in moved_by_view[view] if row["difference"]]
    moved.sort(key=lambda row: -abs(row["difference"]))
    notes = [f"{name} differ: {x} and {y}" for name, x, y in _noted(a, b) if x != y]
    return {"run_a": a.path, "run_b": b.path, "notes": notes, "by_kind": by_kind, "moved_most": moved[:_LISTED]}


def open_finished(path: str) -> Finished:
    """Read a run directory.

    Raises:
        HoldfastError: it is no sensitivity run, not finished, or damaged: a file was cut, or does not hold what such a
            run writes.
    """
    run = finished(path, "sensitivity run")
    _check_summary(Path(path) / "summary.json", run.summary)
    _check_rows(Path(path) / "rows.jsonl", run.rows, run.summary)
    return run


def psi(run: Finished, view: str) -> dict[str, float]:
    """Return psi by set id."""
    return {row["set_id"]: row["indices"][view]["psi"] for row in run.rows if view in row["indices"]}


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
    if summary.get("psi_reason"):
        raise NotComparableError(f"{file}: psi is not available there: {summary['psi_reason']}")
    views = summary.get("posix")
    if (
        not isinstance(views, dict)
        or not views
        or not all(isinstance(v, dict) and type(v.get("sets")) is int for v in views.values())
    ):
        wrong.append("posix")
    if wrong:
        raise HoldfastError(f"{file}: no {', '.join(wrong)} as a sensitivity run writes it; the file is damaged")


def _check_rows(file: Path, rows: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Check that the rows are those of the summary: all, each once, with a psi for every view that they have."""
    if len(rows) != summary["sets"]:
        raise HoldfastError(
            f"{file}: {len(rows)} rows, but {summary['sets']} sets were measured; the file was cut or changed"
        )
    names: set[str] = set()
    counts = dict.fromkeys(summary["posix"], 0)
    for number, row in enumerate(rows, 1):
        name, indices = row.get("set_id"), row.get("indices")
        if not isinstance(name, str) or not isinstance(indices, dict):
            raise HoldfastError(f"{file}, row {number}: no set_id, or no indices, as a sensitivity run writes them")
        if name in names:
            raise HoldfastError(f"{file}, row {number}: set '{name}' stands there twice")
        names.add(name)
        for view in counts.keys() & indices.keys():
            if not isinstance(indices[view], dict) or not is_number(indices[view].get("psi")):
                raise HoldfastError(f"{file}, row {number}: psi of '{view}' is not a finite number")
            counts[view] += 1
    for view, count in counts.items():
        if count != summary["posix"][view]["sets"]:
            raise HoldfastError(
                f"{file}: {count} rows with '{view}', but the summary says {summary['posix'][view]['sets']}"
            )


def as_text(summary: dict[str, Any]) -> str:
    """Return the tables for people, with what else differs between the runs."""
    return "\n\n".join(filter(None, [lines(summary), "\n".join(summary["notes"])]))


def check_alike(a: Finished, b: Finished, checks: Checks) -> None:
    """Refuse runs that measured different things.

    Raises:
        NotComparableError: says what differs.
    """
    refuse_unlike(a, b, checks)
    kinds = [", ".join(run.summary["posix"]) for run in (a, b)]
    if kinds[0] != kinds[1]:
        raise NotComparableError(f"not comparable: {a.path} measured {kinds[0]}; {b.path} measured {kinds[1]}")
    for view in a.summary["posix"]:
        if psi(a, view).keys() != psi(b, view).keys():
            raise HoldfastError(
                f"the rows of {a.path} and {b.path} with '{view}' are not of the same sets, though the summaries say so"
            )


def _noted(a: Finished, b: Finished) -> list[tuple[str, Any, Any]]:
    keys = {
        "models": ("model",),
        "back ends": ("backend",),
        "exemplars (--shots)": ("shots",),
        "types": ("resolved", "dtype"),
    }
    dates = [run.summary["resolved"].get("date") for run in (a, b)]
    return [
        *((name, value_at(a, key), value_at(b, key)) for name, key in keys.items()),
        ("dates that the chat template prints", *dates),
    ]
