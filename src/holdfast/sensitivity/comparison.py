"""Two runs over the same sets: is B steadier than A? Paired over sets, never over prompts.

difference of a view = mean over sets of psi_B - psi_A, with a bootstrap interval and a sign-flip permutation p-value
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.config import CompareConfig
from holdfast.errors import HoldfastError
from holdfast.runs import read_json, write_json
from holdfast.stats import paired_difference

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


class NotComparableError(HoldfastError):
    """Two runs measured different things. The command ends with exit code 3."""

    exit_code = 3


@dataclass(frozen=True)
class Finished:
    """A finished sensitivity run."""

    path: str
    summary: dict[str, Any]
    rows: list[dict[str, Any]]

    def psi(self, view: str) -> dict[str, float]:
        """Set id -> psi."""
        return {row["set_id"]: row["indices"][view]["psi"] for row in self.rows if view in row["indices"]}


def compare(config: CompareConfig) -> dict[str, Any]:
    """Compare two runs.

    Returns:
        ``by_kind``: per view both means, the difference with interval and p-value; ``moved_most``: the sets that moved most.

    Raises:
        NotComparableError: other sets, length, template or definition. Other exemplars are allowed, and noted: their effect is a question.
        HoldfastError: no finished sensitivity run there.
    """
    if config.dry_run:
        raise HoldfastError("--dry-run: a comparison reads two runs and costs nothing; leave it out")
    a, b = open_finished(config.run_a), open_finished(config.run_b)
    refuse_unlike(a, b, MEASURED)
    found = difference(a, b, config.seed, config.bootstrap)
    if config.output:
        folder = Path(config.output)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "comparison.json", found)
    if not config.json:
        print(as_text(found))
    return found


def difference(a: Finished, b: Finished, seed: int, draws: int) -> dict[str, Any]:
    """See ``compare``. The runs must be comparable."""
    by_kind: dict[str, Any] = {}
    moved: list[dict[str, Any]] = []
    for view in a.summary["posix"]:
        psi_a, psi_b = a.psi(view), b.psi(view)
        pairs = [(psi_a[set_id], psi_b[set_id]) for set_id in psi_a]
        left, right = [p for p, _ in pairs], [q for _, q in pairs]
        test = paired_difference(left, right, seed, draws)
        by_kind[view] = {"a": sum(left) / len(left), "b": sum(right) / len(right), **test}
        moved += [{"set_id": s, "kind": view, "a": psi_a[s], "b": psi_b[s], "difference": psi_b[s] - psi_a[s]} for s in psi_a]
    moved = sorted((row for row in moved if row["difference"]), key=lambda row: -abs(row["difference"]))
    notes = [f"{name} differ: {x} and {y}" for name, x, y in _noted(a, b) if x != y]
    return {"run_a": a.path, "run_b": b.path, "notes": notes, "by_kind": by_kind, "moved_most": moved[:_LISTED]}


def open_finished(path: str) -> Finished:
    """Read a run directory.

    Raises:
        HoldfastError: it is no sensitivity run, or not finished.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file() or read_json(folder / "config.json").get("command") != "sensitivity run":
        raise HoldfastError(f"{path}: not a sensitivity run", hint="give the --output of holdfast sensitivity run")
    if not (folder / "summary.json").is_file():
        raise HoldfastError(f"{path}: this run is not finished", hint="the same command continues it")
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").split("\n")
    return Finished(path, read_json(folder / "summary.json"), [json.loads(line) for line in lines if line])


def as_text(found: dict[str, Any]) -> str:
    """A table for people."""
    width = max(10, *(len(view) for view in found["by_kind"]))
    lines = [f"{'POSIX':<{width}}  {'A':>8}  {'B':>8}  {'B - A':>8}  95 % interval        p       sets"]
    for view, row in found["by_kind"].items():
        interval = f"[{row['low']:+.4f}, {row['high']:+.4f}]"
        means = f"{row['a']:8.4f}  {row['b']:8.4f}  {row['difference']:+8.4f}"
        lines.append(f"{view:<{width}}  {means}  {interval:<19}  {row['p']:.4f}  {row['sets']:4d}")
    lines += ["", *found["notes"], *(["sets that moved most"] if found["moved_most"] else [])]
    lines += [f"  {row['set_id']} ({row['kind']}): {row['a']:.4f} -> {row['b']:.4f}" for row in found["moved_most"]]
    return "\n".join(lines)


def refuse_unlike(a: Finished, b: Finished, checks: dict[str, tuple[str, ...]]) -> None:
    """Refuse runs that measured different things.

    Raises:
        NotComparableError: says what differs.
    """
    for what, keys in checks.items():
        left, right = _value(a, keys), _value(b, keys)
        if left != right:
            raise NotComparableError(
                f"not comparable: the {what} differ: {_short(left)} in {a.path}, {_short(right)} in {b.path}",
                hint="measure both models with the same sets and the same options",
            )
    kinds = [", ".join(run.summary["posix"]) for run in (a, b)]
    if kinds[0] != kinds[1]:
        raise NotComparableError(f"not comparable: {a.path} measured {kinds[0]}; {b.path} measured {kinds[1]}")


def _noted(a: Finished, b: Finished) -> list[tuple[str, Any, Any]]:
    keys = {"models": ("model",), "back ends": ("backend",), "exemplars (--shots)": ("shots",), "types": ("resolved", "dtype")}
    return [(name, _value(a, key), _value(b, key)) for name, key in keys.items()]


def _value(run: Finished, keys: tuple[str, ...]) -> Any:
    value: Any = run.summary
    for key in keys:
        value = value[key]
    return value


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
