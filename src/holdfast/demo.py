"""``holdfast demo``: the study that ships with the package, then its report. No network, a few minutes on two cores.

In: nothing but the package. Out: a study directory with ``report.html`` in it; on stdout one table, a sentence that
claims no more than the seeds allow, one line on cross-task prompting, and last of all the path to open.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast import lm as models
from holdfast import pocket
from holdfast.config import DemoConfig, ReportConfig, StudyConfig
from holdfast.crosstask.showcase import zero_shot_against_cross_task
from holdfast.report import report
from holdfast.runs import read_json, write_json
from holdfast.study import run
from holdfast.study.outcomes import item_values, read_rows

# score of the test split -> column title and digits; shares are shown in percent
_COLUMNS = {
    "response_nll": ("response NLL", 3),
    "prompt_nll": ("prompt NLL", 3),
    "new items": ("new items %", 1),
    "new wordings": ("new wordings %", 1),
    "posix": ("POSIX wording", 2),
}


def demo(config: DemoConfig) -> dict[str, Any]:
    """Run the study, make the report; returns ``study`` (its summary), ``table``, ``cross_task`` and ``report``, the
    path of the page.

    A demo that is there is shown again, not repeated.

    Raises:
        HoldfastError: --output holds something else.
    """
    output = Path(config.output)
    study = run(
        StudyConfig(
            study="pocket",
            output=config.output,
            limit=config.limit,
            seed=config.seed,
            overwrite=config.overwrite,
            dry_run=config.dry_run,
            calibrate=0,
            json=config.json or not config.dry_run,  # the demo prints one table of its own
        )
    )
    if config.dry_run:
        return {"command": "demo", **study}
    transfer = _cross_task(output / "cross_task.json")
    page = report(ReportConfig(directories=[config.output], output=str(output / "report.html"), json=True))["path"]
    summary = {"command": "demo", "study": study, "table": table(output), "cross_task": transfer, "report": page}
    if not config.json:
        print("\n".join([*summary["table"], "", study["finding"], "", f"pocket:tasks: {transfer['line']}", "", page]))
    return summary


def table(study: Path) -> list[str]:
    """Test scores of every setting: mean and, after ±, the standard deviation over seeds."""
    groups: dict[str, list[dict[str, float]]] = {}
    for row in (row for row in read_rows(study) if row.get("status") == "done"):
        groups.setdefault(row.get("setting_name", "base model"), []).append(row["test"] | _by_wording(row, study))
    lines = [f"{'(prompt, response)':<18}" + "".join(f"{title:>16}" for title, _ in _COLUMNS.values())]
    for name, scores in groups.items():
        lines.append(
            f"{name:<18}" + "".join(f"{_cell([s[column] for s in scores], column):>16}" for column in _COLUMNS)
        )
    return lines


def _by_wording(row: dict[str, Any], study: Path) -> dict[str, float]:
    """Exact answers on new items in wordings known from training, and in wordings never trained on."""
    right = item_values(row, "test", "exact_match", study)
    assert right is not None
    new = [item["held_out_wording"] for item in pocket.rows("pocket:instructions/test")[: len(right)]]
    return {
        "new items": statistics.fmean(r for r, n in zip(right, new, strict=True) if not n),
        "new wordings": statistics.fmean(r for r, n in zip(right, new, strict=True) if n),
    }


def _cell(values: Sequence[float], column: str) -> str:
    title, digits = _COLUMNS[column]
    shown = [100 * v if title.endswith("%") else v for v in values]
    spread = f" ± {statistics.stdev(shown):.{digits}f}" if len(shown) > 1 else ""
    return f"{statistics.fmean(shown):.{digits}f}{spread}"


def _cross_task(file: Path) -> dict[str, Any]:
    """What the embedded model makes of examples of other tasks, untuned; kept, since it does not depend on the
    study.
    """
    if not file.is_file():
        write_json(file, zero_shot_against_cross_task(models.load("pocket")))
    found: dict[str, Any] = read_json(file)
    return found
