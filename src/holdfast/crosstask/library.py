"""Names -> tasks: a folder of task files, some of them, ``pocket:tasks``, or tasks of other tools.

In: the values of ``--sources`` and ``--target``. Out: tasks by name; every error names file and row. Tasks of other
tools are a YAML of lm-evaluation-harness with local data, and a labelled Hugging Face data set:

    lm-eval    task, description, dataset_kwargs.data_files, doc_to_text, doc_to_target, doc_to_choice,
               target_delimiter; no code of a task is run
    dataset    dataset: folder or hub name, columns: {field: column}, answer: column,
               split: {train: train, test: validation}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.crosstask.tasks import LETTERS, Item, Task, lettered, make_items, make_task
from holdfast.data.media import refuse_media
from holdfast.data.read import Row, dataset_rows, open_dataset, read_values, read_yaml
from holdfast.data.yaml_errors import options_hint
from holdfast.errors import HoldfastError, nearest

_SUFFIXES = (".yaml", ".yml")
_SPLITS = {"training_split": "train", "validation_split": "dev", "test_split": "test"}


def load_library(source: str) -> dict[str, Task]:
    """Return all tasks of a source by name.

    Args:
        source: a folder of task files, one task file (YAML), ``FOLDER/NAME``, ``pocket:tasks``,
            ``pocket:tasks/NAME``, or several of these with commas between them.

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
        files = _task_files(path)
        if not files:
            raise HoldfastError(
                f"{path}: no task files (*.yaml) in this folder", hint="a task is one YAML beside one JSONL"
            )
        for file in files:
            yield load_task(file)
    elif path.is_file():
        yaml = next((file for file in map(path.with_suffix, _SUFFIXES) if file.is_file()), None)
        if path.suffix not in _SUFFIXES and yaml:
            raise HoldfastError(f"{path}: the rows of a task, not the task", hint=f"name the task: {yaml}")
        yield load_task(path)
    else:
        yield load_task(_named_in_folder(path))


def _task_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES)


def _named_in_folder(path: Path) -> Path:
    """Return the file of the task ``FOLDER/NAME``: NAME is that of its file, or the name that stands in it."""
    files = _task_files(path.parent) if path.parent.is_dir() else []
    names: dict[str, Path] = {}
    for file in files:
        settings = read_yaml(file)
        name = settings.get("name") or settings.get("task") if isinstance(settings, dict) else None
        names |= {file.stem: file} | ({str(name): file} if name else {})
    if path.name in names:
        return names[path.name]
    if not names:
        raise HoldfastError(
            f"{path}: no such task file or folder",
            hint="a folder of task YAMLs, one of them, FOLDER/NAME, or pocket:tasks[/NAME]",
        )
    raise HoldfastError(
        f"{path}: no such task file or folder; the tasks in {path.parent} are {', '.join(names)}",
        hint=nearest(path.name, names) or f"{path.parent}/{next(iter(names))} names one",
    )


def load_task(path: Path) -> Task:
    """Return one task from its YAML: our own kind, one of lm-evaluation-harness with local data, or a data set.

    Raises:
        HoldfastError: names file and row.
    """
    settings = read_yaml(path)
    if not isinstance(settings, dict):
        raise HoldfastError(f"{path}: not a list of 'key: value' lines", hint=options_hint(settings))
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
        raise HoldfastError(
            f"pocket:tasks/{name}: no such task; there are {', '.join(names)}", hint=nearest(name, names)
        )


def read_rows(path: Path) -> list[Row]:
    """Return the rows of the data of a task, each with its place."""
    return read_values(str(path), hint="the data of a task lies beside its YAML, or where its 'data' key says")


def lm_eval_task(path: Path, settings: Mapping[str, Any]) -> Task:
    """Return a task of lm-evaluation-harness with local data. Its ``description`` (else its name) is the definition.

    Raises:
        HoldfastError: names file and row: no local data, code in the task, a template that fails on a row.
    """
    where = str(path)
    for key in ("include", "process_docs", "doc_to_image", "group"):
        if key in settings:
            raise HoldfastError(
                f"{where}: '{key}' is not read here", hint="write the task out in one YAML with plain templates"
            )
    if "doc_to_text" not in settings or "doc_to_target" not in settings:
        raise HoldfastError(f"{where}: a task of lm-evaluation-harness needs doc_to_text and doc_to_target")
    docs = list(_lm_eval_docs(path, settings))
    spaces = [_choices(settings.get("doc_to_choice"), doc, place) for doc, place, _ in docs]
    same = spaces and spaces[0] is not None and all(space == spaces[0] for space in spaces)
    rows = []
    for (doc, place, split), space in zip(docs, spaces):
        target = _render(settings["doc_to_target"], doc, place)
        if space is not None and not (isinstance(target, str) and target in space):
            if not str(target).strip().isdecimal() or int(target) >= len(space):
                raise HoldfastError(
                    f"{place}: doc_to_target gives {target!r}, which is neither one of {', '.join(space)} nor a place "
                    "among them"
                )
            target = space[int(target)]
        answer = str(target) if same else str(target).strip()
        text = str(_render(settings["doc_to_text"], doc, place))
        rows.append(({"fields": {"text": text}, "answer": answer, "split": split}, place))
    name = str(settings.get("task") or path.stem)
    definition = str(settings.get("description") or name.replace("_", " ")).strip()
    ours: dict[str, Any] = {
        "name": name,
        "definition": definition,
        "template": "{text}",
        "answer_prefix": settings.get("target_delimiter", " "),
    }
    task = make_task(ours | ({"labels": spaces[0]} if same else {}), rows, where)
    names = _columns(str(settings["doc_to_text"]), docs[0][0])
    pairs = zip(task.items, docs, strict=True)
    return replace(task, items=tuple(replace(item, columns=_values(doc, names)) for item, (doc, _, _) in pairs))


def _columns(template: str, doc: dict[str, Any]) -> list[str]:
    """Return the columns that a template or the name of a column stands for."""
    if template in doc:
        return [template]
    from jinja2 import meta
    from jinja2.sandbox import SandboxedEnvironment

    return sorted(meta.find_undeclared_variables(SandboxedEnvironment().parse(template)))


def _values(doc: dict[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Return texts and options of a row, to compare it with rows of other tasks; other values cannot be compared."""
    values = {}
    for name in names:
        value = doc.get(name)
        if isinstance(value, dict) and isinstance(value.get("text"), list):  # the shape of ARC and its kin
            value = value["text"]
        if isinstance(value, list) and 1 < len(value) <= len(LETTERS):
            values[name] = lettered(value)
        elif isinstance(value, str | int | float):
            values[name] = str(value)
    return values


def dataset_task(path: Path, settings: Mapping[str, Any]) -> Task:
    """Return a labelled data set as a task; ``columns`` says which column fills which field.

    Raises:
        HoldfastError: the data set cannot be loaded, or a column is not there.
    """
    where, source = str(path), str(settings["dataset"])
    columns = settings.get("columns")
    if not isinstance(columns, dict) or not columns:
        raise HoldfastError(
            f"{where}: 'dataset' needs 'columns'",
            hint="columns: {text: sentence} fills the field text from the column sentence",
        )
    splits = settings.get("split", {"": "train"})
    splits = {"": splits} if isinstance(splits, str) else splits
    if not isinstance(splits, dict):
        raise HoldfastError(
            f"{where}: 'split' is {splits!r}; it is a name, or names: {{train: train, test: validation}}"
        )
    answer = str(settings.get("answer", "label"))
    rows, names = [], None
    for split, name in splits.items():
        data = open_dataset(source, str(name), path.parent)
        names = getattr(data.features.get(answer), "names", None)
        for column in (*columns.values(), answer):
            if column not in data.column_names:
                raise HoldfastError(
                    f"{where}: {source} has no column '{column}'; it has {', '.join(data.column_names)}"
                )
        for number, (row, place) in enumerate(dataset_rows(data, f"{source}, split {name}"), 1):
            value = names[row[answer]] if names and isinstance(row[answer], int) and row[answer] >= 0 else row[answer]
            fields = {field: row[column] for field, column in columns.items()}
            refuse_media({column: row[column] for column in columns.values()}, place)
            ours = {"id": f"{name}-{number}", "fields": fields, "answer": value}
            rows.append((ours | ({"split": split} if split else {}), place))
    rest = {key: value for key, value in settings.items() if key not in ("dataset", "columns", "split", "answer")}
    if "template" not in rest:
        rest.setdefault("fields", list(columns))
    if names:
        rest.setdefault("labels", list(names))
        rest.pop("answer_is", None)
    return make_task(rest, rows, where)


def _lm_eval_docs(path: Path, settings: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    arguments = settings.get("dataset_kwargs")
    files = arguments.get("data_files") if isinstance(arguments, dict) else None
    if not files:
        raise HoldfastError(
            f"{path}: no local data",
            hint="dataset_path: json with dataset_kwargs: {data_files: {test: file.jsonl}}; download other data first",
        )
    if not isinstance(files, dict):
        files = {"test": files}
    names = {str(settings[key]): split for key, split in _SPLITS.items() if settings.get(key)}
    for name, listed in files.items():
        for file in listed if isinstance(listed, list) else [listed]:
            for row, place in read_rows(path.parent / str(file)):
                yield row, place, names.get(str(name), "test" if not names else str(name))


def _choices(choice: Any, doc: dict[str, Any], place: str) -> list[str] | None:
    if choice is None:
        return None
    value = choice if isinstance(choice, list) else _render(choice, doc, place)
    if isinstance(value, str):
        import ast

        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
            raise HoldfastError(f"{place}: doc_to_choice gives {value!r}, not a list") from error
    if not isinstance(value, list | tuple):
        raise HoldfastError(f"{place}: doc_to_choice gives {value!r}, not a list")
    return [str(choice) for choice in value]


def _render(template: Any, doc: dict[str, Any], place: str) -> Any:
    """Return a column by its name, or a Jinja template filled in; other values as they are."""
    if not isinstance(template, str):
        return template
    if template in doc:
        return doc[template]
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    try:
        environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
        return environment.from_string(template).render(**doc)
    except Exception as error:  # TemplateError, and what a filter or an operator raises on a value that it does not fit
        raise HoldfastError(f"{place}: the template {template!r} fails: {error}") from error
