"""Names -> tasks: a library is a folder of task files, some of them, or ``pocket:tasks``.

In: the values of ``--sources`` and ``--target``. Out: tasks by name; every error names file and row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from holdfast.crosstask.importers import dataset_task, lm_eval_task, read_rows
from holdfast.crosstask.tasks import Item, Task, make_items, make_task
from holdfast.data.read import read_yaml
from holdfast.errors import HoldfastError


def load_library(source: str) -> dict[str, Task]:
    """Return all tasks of a source by name.

    Args:
        source: a folder of task files, one task file (YAML), ``pocket:tasks``, ``pocket:tasks/NAME``, or several
            of these with commas between them.

    Raises:
        HoldfastError: names file and row.
    """
    tasks: dict[str, Task] = {}
    for part in source.split(","):
        for task in _load(part.strip()):
            if task.name in tasks:
                raise HoldfastError(
                    f"{task.where}: a task called '{task.name}' is already there ({tasks[task.name].where})",
                    hint="give each task its own name",
                )
            tasks[task.name] = task
    return tasks


def _load(source: str) -> Iterator[Task]:
    if source.partition("/")[0] == "pocket:tasks":
        yield from _pocket(source.partition("/")[2])
        return
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml"))
        if not files:
            raise HoldfastError(
                f"{path}: no task files (*.yaml) in this folder", hint="a task is one YAML beside one JSONL"
            )
        for file in files:
            yield load_task(file)
    elif path.is_file():
        yield load_task(path)
    else:
        raise HoldfastError(
            f"{source}: no such task file or folder", hint="a folder of task YAMLs, one of them, or pocket:tasks[/NAME]"
        )


def load_task(path: Path) -> Task:
    """Return one task from its YAML: our own kind, one of lm-evaluation-harness with local data, or a data set.

    Raises:
        HoldfastError: names file and row.
    """
    settings = read_yaml(path)
    if not isinstance(settings, dict):
        raise HoldfastError(f"{path}: not a list of 'key: value' lines")
    if "doc_to_text" in settings or "dataset_path" in settings:
        return lm_eval_task(path, settings)
    if "dataset" in settings:
        return dataset_task(path, settings)
    data = path.parent / str(settings.get("data", path.with_suffix(".jsonl").name))
    return make_task(settings, read_rows(data), str(path))


def read_items(path: Path, task: Task) -> tuple[Item, ...]:
    """Return further items of a task from a file of their own: an unlabelled pool, or pseudo-labels."""
    items = make_items(task, read_rows(path))
    if not items:
        raise HoldfastError(f"{path}: no rows")
    return items


def _pocket(name: str) -> Iterator[Task]:
    from holdfast import pocket

    names = []
    for row in pocket.rows("pocket:tasks"):
        names.append(row["name"])
        if name in ("", row["name"]):
            where = f"pocket:tasks/{row['name']}"
            yield make_task(
                {k: row[k] for k in ("name", "definition", "labels", "cue")},
                [(r, f"{where}, row {i}") for i, r in enumerate(row["rows"], 1)],
                where,
            )
    if name and name not in names:
        raise HoldfastError(f"pocket:tasks/{name}: no such task; there are {', '.join(names)}")
