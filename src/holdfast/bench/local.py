"""--data-dir -> task files that include the harness's own, and take their rows from there.

    DATA/mmlu/dev*.jsonl, test*.jsonl    question, choices, answer, subject (a task takes the rows of its subject)
    DATA/bbh/<subtask>.jsonl             input, target
    DATA/ifeval/*.jsonl                  key, prompt, instruction_id_list, kwargs
    DATA/**/*.yaml                       tasks of one's own, as the harness reads them

The folder of a task has the name that it has in the harness. A file whose name begins with the name of a split belongs
to that split; where no file does, all files are the split that is tested. Prompts, filters and metrics stay those of
the harness.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from holdfast.data.read import read_values
from holdfast.errors import HoldfastError

Rows = list[dict[str, Any]]
_FORMS = {
    "mmlu": "mmlu/dev*.jsonl and mmlu/test*.jsonl with rows of question, choices, answer (0-3), subject",
    "bbh": "bbh/<subtask>.jsonl with rows of input, target",
    "ifeval": "ifeval/*.jsonl with rows of key, prompt, instruction_id_list, kwargs",
}


def write_tasks(entries: Iterable[tuple[str, Path, dict[str, Any]]], data_dir: Path, folder: Path) -> None:
    """Write one YAML file per task, and its rows, into ``folder``.

    Args:
        entries: name of the task, its YAML file in the harness, and the content of that.

    Raises:
        HoldfastError: the rows of a task are not in ``data_dir``; the hint has the form that they need.
    """
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    read = functools.cache(read_rows)  # all subjects of MMLU lie in one file
    for name, path, settings in entries:
        files = {}
        for split, rows in _splits(name, path, settings, data_dir, read).items():
            file = folder / f"{name}-{split}.jsonl"
            file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
            files[split] = str(file)
        task = {
            "include": str(path),
            "task": name,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": files},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")


def digest(data_dir: str | None) -> str | None:
    """Return the SHA-256 of the files below ``data_dir`` and their names; None without a folder."""
    if data_dir is None:
        return None
    sha = hashlib.sha256()
    for path in sorted(p for p in Path(data_dir).rglob("*") if p.suffix in (".jsonl", ".json", ".yaml")):
        sha.update(f"{path.relative_to(data_dir)}\n".encode() + path.read_bytes())
    return sha.hexdigest()


def read_rows(path: Path) -> Rows:
    """Return the rows of a file, read as JSONL unless its suffix says otherwise."""
    return [row for row, _ in read_values(str(path))]


def _splits(
    name: str, path: Path, settings: dict[str, Any], data_dir: Path, read: Callable[[Path], Rows]
) -> dict[str, Rows]:
    family = path.parts[path.parts.index("tasks") + 1]
    form = _FORMS.get(
        family,
        f"{family}/<split>*.jsonl with rows as {settings.get('dataset_path')} has them, or a task YAML of your own",
    )
    part = settings.get("dataset_name")
    tested = settings.get("test_split") or settings.get("validation_split") or "test"
    wanted = list(dict.fromkeys([tested, settings.get("fewshot_split") or tested]))
    files = _files(data_dir / family, part)
    if not files:
        raise HoldfastError(f"--data-dir {data_dir}: nothing there for task {name}", hint=f"wanted: {form}")
    by_split: dict[str, Rows] = {}
    for split in wanted:
        named = [f for f in files if f.stem == split or f.stem.startswith((f"{split}_", f"{split}-", f"{split}."))]
        sources = named or (files if len(wanted) == 1 else [])
        rows = []
        for file in sources:
            whole = part is None or file.stem == part
            rows += [row for row in read(file) if whole or row.get("subject") == part]
        if not rows:
            where = ", ".join(f.name for f in files)
            raise HoldfastError(
                f"--data-dir {data_dir}: no '{split}' rows for task {name} in {family}/ ({where})",
                hint=f"wanted: {form}",
            )
        by_split[split] = rows
    return by_split


def _files(folder: Path, part: str | None) -> Sequence[Path]:
    """Return ``folder/<part>.jsonl``, or the files of ``folder/<part>/``, or those of ``folder`` itself."""
    if part and (folder / f"{part}.jsonl").is_file():
        return [folder / f"{part}.jsonl"]
    own = sorted((folder / part).glob("*.jsonl")) if part else []
    return own or sorted(folder.glob("*.jsonl"))
