"""``holdfast study best``: what to use, or what to believe.

In: a study directory, finished or not, or a CSV table of results made elsewhere.
Out: from a study the chosen TuneConfig as YAML on stdout and the finding on stderr; from a table figures and a sentence
on stdout.
"""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import sys
from pathlib import Path
from typing import Any

from holdfast.config import BestConfig, RunConfig, TuneConfig
from holdfast.errors import HoldfastError
from holdfast.runs import read_json, write_json, write_text
from holdfast.study.columns import lower_is_better
from holdfast.study.measures import direction
from holdfast.study.outcomes import count_trials, in_words, read_rows
from holdfast.tables import with_tables


def best(config: BestConfig) -> dict[str, Any]:
    """Analyse a study or a table.

    Returns:
        The summary with its ``tables``: of a study the selection (``study.select.select``) with ``tune``, the chosen
        config; of a table ``study.reanalysis.analyse``.

    Raises:
        HoldfastError: neither a study nor a table there, or what ``select``, ``read_table`` and ``analyse`` refuse.

    >>> from holdfast.study import BestConfig, best
    >>> scores = ["prompt_weight,response_weight,accuracy", "0,1,0.50", "0,0.5,0.52", "0.2,0.8,0.53", "1,1,0.51"]
    >>> _ = open("scores.csv", "w").write("\\n".join(scores))
    >>> best(BestConfig(source="scores.csv", metric="accuracy", json=True))["settings"][0]["best_name"]
    '(0.2, 0.8)'
    """
    if config.dry_run:
        raise HoldfastError("--dry-run: choosing reads a study or a table and costs nothing; leave it out")
    source = Path(config.source)
    if not source.exists():
        raise HoldfastError(f"{source}: no such file or directory", hint="give a study directory or a CSV file")
    return _of_study(config, source) if source.is_dir() else _of_table(config, source)


def _higher_is_better(metric: str, config: BestConfig, declared: bool | None = None) -> bool:
    """Return whether higher is better: as the study declares it, else as a flag says, else by the metric's name."""
    if config.lower_is_better and config.higher_is_better:
        raise HoldfastError(
            "--lower-is-better and --higher-is-better contradict each other", hint="leave one of them out"
        )
    told = config.higher_is_better if config.lower_is_better or config.higher_is_better else None
    if declared is None:
        return not lower_is_better(metric) if told is None else told
    if told not in (None, declared):
        flag, better = ("higher", "lower") if told else ("lower", "higher")
        raise HoldfastError(
            f"--{flag}-is-better: of {metric} {better} is better, says the study", hint="leave the flag out"
        )
    return declared


def _of_table(config: BestConfig, path: Path) -> dict[str, Any]:
    from holdfast.study.reanalysis import analyse, as_text
    from holdfast.study.table import read_table

    table = read_table(path, config.metric, config.where, config.settings)
    higher = _higher_is_better(table.metric, config)
    summary = {"command": "study best", "source": str(path)}
    summary = with_tables(summary | analyse(table, higher_is_better=higher, seed=config.seed))
    _keep(config, summary)
    if not config.json:
        print(as_text(summary))
    return summary


def _of_study(config: BestConfig, path: Path) -> dict[str, Any]:
    from holdfast.study.select import select

    if config.settings:
        raise HoldfastError("--settings names columns of a table; a study knows its settings", hint="leave it out")
    rows, metric, higher = _open_study(path, config)
    selection = select(rows, metric=metric, higher_is_better=higher, seed=config.seed, root=path)
    chosen = next(r for r in rows if r["setting_name"] == selection["chosen"] and r["status"] == "done")
    tune = _tune_config(path, chosen)
    then = read_json(path / "config.json").get("resolved", {}).get("identity", {}).get("then", {})
    comment = f"Chosen from {path} by {metric} ({direction(higher)}) on its dev split.\n{selection['finding']}"
    if "align" in then:
        options = ", ".join(f"{name}: {value}" for name, value in then["align"].items())
        after = f"Measured after `holdfast align` of the tuned model, with {options}. This file is the tuning alone."
        comment += f"\n{after}"
    summary = {"command": "study best", "source": str(path), "metric": metric, "higher_is_better": higher, **selection}
    trials = _trials(path, rows)
    summary = with_tables(summary | {"tune": tune, "then": then} | ({"trials": trials} if trials else {}))
    yaml = as_yaml(tune, f"{comment}\n{as_command(tune)}")
    _keep(config, summary, yaml)
    if not config.json:
        print(yaml, end="")
        print(selection["finding"], file=sys.stderr)
        for trial in selection["left_out"]:
            row = next(row for row in rows if row["trial"] == trial)
            run = f"{row['setting_name']} seed {row['seed']}"
            print(f"left out: {run}: its {metric} on dev is not a number", file=sys.stderr)
        if trials:
            print(in_words(trials, complete=(path / "summary.json").is_file()), file=sys.stderr)
    return summary


def _trials(path: Path, rows: list[dict[str, Any]]) -> dict[str, int]:
    """Return how those trials of the plan have ended that belong to the group of these rows; empty where no plan says
    how many there are.
    """
    plan = read_json(path / "config.json").get("resolved", {}).get("trials") or []
    groups = {row.get("group", "") for row in rows}
    return count_trials(rows, sum(trial.get("group", "") in groups for trial in plan)) if plan else {}


def as_command(tune: dict[str, Any]) -> str:
    """Return the command line of a TuneConfig, with every option that is not at its default."""
    words = ["holdfast", "tune"]
    for name, value in tune.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{name.replace('_', '-')}")
        elif isinstance(value, dict):
            words += [flag, *map(str, itertools.chain.from_iterable(value.items()))]
        elif value is not None:
            words += [flag, str(value)]
    return shlex.join(words)


def as_yaml(tune: dict[str, Any], comment: str) -> str:
    """Return a TuneConfig as the YAML that ``holdfast tune --config`` reads, with a comment on top."""
    import yaml

    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + yaml.safe_dump(tune, sort_keys=False, allow_unicode=True)


def _open_study(path: Path, config: BestConfig) -> tuple[list[dict[str, Any]], str, bool]:
    """Return the trials of one group (base model and data set) of a study, twins last; the metric; and whether higher
    is better.
    """
    if not (path / "config.json").is_file() or read_json(path / "config.json").get("command") != "study run":
        raise HoldfastError(f"{path}: not a study", hint="give the --output of holdfast study run, or a CSV file")
    rows = [row for row in read_rows(path) if row.get("kind") == "trial"]
    rows = sorted(_group(rows, config.where, path), key=lambda row: row.get("twin", 0))
    plan = read_json(path / "config.json").get("resolved", {})
    metric = config.metric or plan.get("metric", "response_nll")
    declared = {plan.get("metric"): plan.get("higher_is_better")} | plan.get("measured", {})  # older studies lack it
    return rows, metric, _higher_is_better(metric, config, declared.get(metric))


def _group(rows: list[dict[str, Any]], where: str, path: Path) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(row.get("group", "") for row in rows))
    wanted = where.removeprefix("group=") if where else names[0] if len(names) == 1 else None
    if names and wanted not in names:
        wrong = f"has no group '{wanted}'; it has" if where else "holds several base models or data sets:"
        raise HoldfastError(f"{path} {wrong} {', '.join(names)}", hint="choose one with --where group=NAME")
    return [row for row in rows if row.get("group", "") == wanted]


def _tune_config(path: Path, trial: dict[str, Any]) -> dict[str, Any]:
    """Return the chosen trial's own config without defaults, seed and what belongs to the run; its output is a new
    place.
    """
    stored = read_json(path / trial["path"] / "config.json")["config"]
    own = {f.name for f in dataclasses.fields(RunConfig)} - {"limit"}
    defaults = {f.name: _default(f) for f in dataclasses.fields(TuneConfig)}
    kept = {k: v for k, v in stored.items() if k in defaults and k not in own and v != defaults[k]}
    return {"output": f"{path.resolve().name}-best", **kept}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _keep(config: BestConfig, summary: dict[str, Any], yaml: str = "") -> None:
    if not config.output:
        return
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "best.json", summary)
    if yaml:
        write_text(folder / "best.yaml", yaml)
