"""``holdfast demo``: the study that ships with the package, then its report. No network, a few minutes on two cores.

In: nothing but the package. Out: a study directory with ``report.html`` in it; on stdout one table, a sentence that
claims no more than the seeds allow, one line on cross-task prompting, and last of all the path to open.
"""

from __future__ import annotations

import statistics
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
from holdfast.tables import MORE_TABLES, lines, with_tables


def demo(config: DemoConfig) -> dict[str, Any]:
    """Run the study and make the report. Returns ``study`` (its summary), ``scores`` (by setting and seed), ``tables``
    and ``table`` (the same as lines of text), ``cross_task``, and ``report``, the path of the page.

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
    summary = with_tables({"command": "demo", "study": study, "scores": scores(output), "cross_task": transfer})
    write_json(output / MORE_TABLES, summary["tables"])
    page = report(ReportConfig(directories=[config.output], output=str(output / "report.html"), json=True))["path"]
    table = lines(summary)
    if not config.json:
        print("\n".join([table, "", study["finding"], "", f"pocket:tasks: {transfer['line']}", "", page]))
    return summary | {"table": table.splitlines(), "report": page}


def scores(study: Path) -> dict[str, list[dict[str, float]]]:
    """Return the scores on the test split by setting, one dict per seed; the base model is a setting of its own."""
    groups: dict[str, list[dict[str, float]]] = {}
    for row in read_rows(study):
        if row.get("status") == "done":
            groups.setdefault(row.get("setting_name", "base model"), []).append(row["test"] | _by_wording(row, study))
    return groups


def _by_wording(row: dict[str, Any], study: Path) -> dict[str, float]:
    """Return the shares of exact answers on new items, in wordings of the training and in wordings never trained on."""
    right = item_values(row, "test", "exact_match", study)
    assert right is not None
    hits: dict[bool, list[float]] = {False: [], True: []}
    for hit, item in zip(right, pocket.rows("pocket:instructions/test"), strict=False):
        hits[item["held_out_wording"]].append(float(hit))
    return {"new items": statistics.fmean(hits[False]), "new wordings": statistics.fmean(hits[True])}


def _cross_task(file: Path) -> dict[str, Any]:
    """Return what the embedded model, untuned, makes of examples of other tasks. The result is kept in a file, as it
    does not depend on the study.
    """
    if not file.is_file():
        write_json(file, zero_shot_against_cross_task(models.load("pocket")))
    transfer: dict[str, Any] = read_json(file)
    return transfer
