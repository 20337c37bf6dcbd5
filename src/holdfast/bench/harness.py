"""Pins -> the results and samples of lm-evaluation-harness on one model.

The harness builds prompts, filters answers and computes metrics. This file chooses tasks and shots, adds local data and
templates, keeps answers in a cache so that a killed run goes on, and replaces the scorer where prompts share prefixes.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.bench.local import write_tasks
from holdfast.bench.readable import check_alike, check_direction, check_halves, check_readable, going_on
from holdfast.bench.shared import harness_model
from holdfast.bench.suites import Pin, pins_of
from holdfast.errors import HoldfastError, nearest
from holdfast.lm import LM, load
from holdfast.progress import Progress
from holdfast.runs import write_text

_IN_TURNS = ("chat", "dialogue")
"""Templates in which few-shot examples are earlier turns; in others they stand in the one message."""
_FORM = "docs/bench.md has the form of the rows of --data-dir"
EXTRA = 'pip install "holdfast[bench]"'


@dataclass(frozen=True)
class Settings:
    """How the model is asked. ``template`` is a name of ``holdfast.data.chat_template`` or ``none``. The cache and the
    task files of local data go into ``folder``."""

    template: str
    folder: Path
    data_dir: str | None = None
    limit: int | None = None
    seed: int = 0
    batch_size: int = 16
    max_new_tokens: int | None = None
    cache: str | None = None
    sharing: bool = True


def check_extra(pins: Sequence[Pin]) -> None:
    """Check, before a model is loaded, that everything is installed that the benchmarks need.

    Raises:
        HoldfastError: says what to install, or to download, with which command.
    """
    try:
        with _quiet():
            import lm_eval.tasks  # noqa: F401
    except ImportError as error:
        raise HoldfastError(f"lm-evaluation-harness is not installed, or not whole: {error}", hint=EXTRA) from error
    if any("ifeval" in pin.task for pin in pins):
        try:
            import immutabledict  # noqa: F401
            import langdetect  # noqa: F401
            import nltk
        except ImportError as error:
            raise HoldfastError(f"IFEval needs a package that is missing: {error}", hint=EXTRA) from error
        try:
            nltk.data.find("tokenizers/punkt_tab")
        except LookupError:
            raise HoldfastError(
                "IFEval splits answers into sentences with data of nltk that is not on this machine (punkt_tab, about "
                "4 MB)",
                hint="python -m nltk.downloader punkt_tab",
            ) from None


def find_tasks(pins: Sequence[Pin], settings: Settings) -> Any:
    """Return the harness's tasks and groups of these pins, with their shots set.

    The keys are ``tasks``, ``groups``, ``group_map``, and ``benchmarks``: the names of the tasks of each pin.

    Raises:
        HoldfastError: unknown name, rows that cannot be loaded, one task with two settings, or one that cannot be
            scored here.
    """
    with _quiet():
        manager = _manager([pin.task for pin in pins], settings)
        wanted: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}, "benchmarks": {}}
        for pin in pins:
            loaded = _loaded(manager, pin.task, settings)
            for name, task in loaded["tasks"].items():
                shots = task.get_config("num_fewshot") if pin.shots is None else pin.shots
                task.set_config(key="num_fewshot", value=shots or 0)
                task.set_fewshot_seed(seed=settings.seed)
                check_alike(name, task, wanted["tasks"].get(name), pin.task)
            for key, part in loaded.items():
                wanted[key] |= {name: one for name, one in part.items() if name not in wanted[key]}
            wanted["benchmarks"][pin.task] = list(loaded["tasks"])
        for name, task in wanted["tasks"].items():
            with _explained(settings):
                check_readable(name, task, settings.seed)
        return wanted


def keep_files(loaded: dict[str, Any], before: Path, after: Path) -> None:
    """Copy the task files of local data to another folder, and change the paths in them and in ``loaded``."""
    for file in sorted((before / "tasks").glob("*")):
        (after / "tasks").mkdir(exist_ok=True)
        text = file.read_text(encoding="utf-8")
        write_text(
            after / "tasks" / file.name, text.replace(str(before), str(after)) if file.suffix == ".yaml" else text
        )
    for task in loaded["tasks"].values():
        files = (task.get_config("dataset_kwargs") or {}).get("data_files")
        if isinstance(files, dict) and any(str(file).startswith(str(before)) for file in files.values()):
            moved = {split: str(file).replace(str(before), str(after)) for split, file in files.items()}
            task.set_config(key="dataset_kwargs", value={"data_files": moved}, update=True)


def evaluate(lm: LM, loaded: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return the harness's whole result: ``results``, ``groups``, ``samples``, ``versions``, ``n-shot``, ``configs``
    and more; and ``failed``: task -> metric that could not be scored -> why.

    Answers in ``settings.cache`` are not asked again; new ones are added to it as they come.
    """
    from lm_eval.api.model import CachingLM
    from lm_eval.evaluator import evaluate
    from transformers import set_seed

    set_seed(settings.seed)
    _fit_answers(loaded["tasks"], lm.context, settings.max_new_tokens)
    progress = Progress("request", doing="benchmarks")
    with progress, _quiet(), _explained(settings), going_on(loaded) as failed:
        model = harness_model(
            lm, batch_size=settings.batch_size, template=settings.template, sharing=settings.sharing, progress=progress
        )
        asked = CachingLM(model, f"{settings.cache}.db") if settings.cache else model
        results = evaluate(
            asked,
            loaded,
            limit=settings.limit,
            bootstrap_iters=100,  # for its own standard errors; our intervals are made from the items
            apply_chat_template=settings.template != "none",
            fewshot_as_multiturn=settings.template in _IN_TURNS,
        )
    about = {
        "model": lm.name,
        "model_args": {"template": settings.template},
        "batch_size": settings.batch_size,
        "limit": settings.limit,
    }
    return dict(results or {}) | {
        "failed": failed,
        "config": about | model.get_model_info() | {"fewshot_seed": settings.seed},
        "date": time.time(),
    }


def preview(pin: Pin, settings: Settings, tokenizer: Any) -> tuple[str, dict[str, int]]:
    """Return the first prompt of a benchmark, and its number of tasks and items."""
    from holdfast.bench.shared import chat_renderer

    loaded = find_tasks([pin], settings)
    sizes = [min(len(task.eval_docs), settings.limit or len(task.eval_docs)) for task in loaded["tasks"].values()]
    task = next(iter(loaded["tasks"].values()))
    chat = settings.template != "none"
    with _quiet(), _explained(settings):
        task.build_all_requests(
            limit=1,
            rank=0,
            world_size=1,
            apply_chat_template=chat,
            fewshot_as_multiturn=settings.template in _IN_TURNS,
            chat_template=chat_renderer(tokenizer, settings.template) if chat else None,
            tokenizer_name="preview",
        )
    return str(task.instances[0].args[0]), {"tasks": len(sizes), "items": sum(sizes)}


def check_tasks(
    tasks: list[str],
    *,
    data_dir: str | None = None,
    limit: int | None = None,
    halves: bool = False,
    higher_is_better: bool | None = None,
) -> None:
    """Everything about tasks that ``scores`` could fail at, but for the model.

    Args:
        halves: also that there are items for both halves, and that more is better or not as the tasks say.

    Raises:
        HoldfastError: unknown task, missing extra or data, or a task that cannot be scored here.

    >>> from holdfast.bench import check_tasks
    >>> check_tasks(["my_sums"], data_dir="tasks", halves=True)
    """
    pins = pins_of(tasks)
    check_extra(pins)
    with tempfile.TemporaryDirectory() as folder:
        loaded = find_tasks(pins, Settings("none", Path(folder), data_dir))
        for pin in pins if halves else ():
            check_halves(pin.task, loaded, limit)
            check_direction(pin, loaded, higher_is_better)


def scores(
    model: str, tasks: list[str], *, data_dir: str | None = None, limit: int | None = None, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Scores of one model on tasks of lm-evaluation-harness, with nothing written but the harness's own data cache.

    Args:
        model: what ``holdfast.lm.load`` takes.
        tasks: names of the harness; those of our suites get the pinned number of shots and the pinned metric, others
            their own.
        data_dir: see ``holdfast.bench.local``.
        limit: items per task.

    Returns:
        ``{task: {"value", "metric", "items", "halves"}}``: the harness's value; a number per item, in a fixed order so
        that two models can be paired, whose mean is the value, or None where the task takes no mean; and value and
        items of the even items and of the odd ones. What belongs to one item, such as the instructions of an item of
        ``ifeval``, stays together.

    Raises:
        HoldfastError: unknown task, missing extra or data.

    >>> from holdfast.bench import harness_scores
    >>> score = harness_scores("pocket", ["my_sums"], data_dir="tasks")["my_sums"]
    >>> score["metric"], len(score["items"])
    ('acc,none', 6)
    """
    from holdfast.bench.items import flat_scores
    from holdfast.data.chat_template import template_for

    pins = pins_of(tasks)
    check_extra(pins)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings("none", Path(folder), data_dir, limit, seed)
        loaded = find_tasks(pins, settings)
        lm = load(model)
        settings = Settings(template_for(model, "auto", lm.tokenizer), Path(folder), data_dir, limit, seed)
        return flat_scores(evaluate(lm, loaded, settings), loaded, pins)


def _manager(names: Sequence[str], settings: Settings) -> Any:
    """Return a task manager that has read as few of the harness's 14,000 task files as it needs."""
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    home = Path(lm_eval.tasks.__file__).parent
    own = [settings.data_dir] if settings.data_dir and any(Path(settings.data_dir).rglob("*.yaml")) else []
    folders = itertools.chain.from_iterable(_folders(home, name) for name in names)
    near = [*map(str, sorted(set(folders))), *own]
    whole = False
    manager = TaskManager(include_path=near, include_defaults=False)
    if any(name not in manager.all_tasks for name in names):
        manager, whole = TaskManager(include_path=own or None, include_defaults=True), True
    for name in names:
        if name not in manager.all_tasks:
            raise HoldfastError(f"no task '{name}' in this harness", hint=nearest(name, manager.all_tasks))
    if settings.data_dir is None:
        return manager
    leaves = itertools.chain.from_iterable(_leaves(manager, name) for name in names)
    entries = [manager.task_index[leaf] for leaf in leaves]
    theirs = [(e.name, e.yaml_path, e.cfg or {}) for e in entries if e.yaml_path and home in e.yaml_path.parents]
    if not theirs:
        return manager
    write_tasks(theirs, Path(settings.data_dir), settings.folder / "tasks")
    return TaskManager(include_path=[*(own if whole else near), str(settings.folder / "tasks")], include_defaults=whole)


def _folders(home: Path, name: str) -> list[Path]:
    """Return the harness's folder that a task's name begins with, if there is one."""
    paths = (home / part for part in itertools.accumulate(name.split("_"), "{}_{}".format))
    return [path for path in paths if path.is_dir()][:1]


def _leaves(manager: Any, name: str) -> list[str]:
    entry = manager.task_index[name]
    if entry.kind.name == "TAG":
        return sorted(entry.tags)
    if entry.kind.name != "GROUP":
        return [name]
    children = _children((entry.cfg or {})["task"])
    return [*itertools.chain.from_iterable(_leaves(manager, child) for child in children)]


def _children(members: Any) -> Iterator[str]:
    for member in members if isinstance(members, list) else [members]:
        if isinstance(member, str):
            yield member
        elif isinstance(member.get("task"), list):
            yield from _children(member["task"])
        else:
            yield member.get("task") or member["group"]


def _loaded(manager: Any, name: str, settings: Settings) -> dict[str, Any]:
    try:
        return dict(manager.load([name]))
    except HoldfastError:
        raise
    except ImportError as error:
        raise HoldfastError(
            f"task {name} needs a package that is missing or broken: {error}", hint="install it beside the harness"
        ) from error
    except Exception as error:  # whatever the hub, the data library or a task's own code raises
        raise HoldfastError(
            f"task {name}: its data cannot be loaded ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''})",
            hint=_FORM
            if settings.data_dir
            else "the hub is needed for it, or --data-dir with local files (docs/bench.md)",
        ) from error


def _fit_answers(tasks: dict[str, Any], context: int, most: int | None) -> None:
    """Cap the length of answers: at ``most`` tokens, and at half of the context, because the prompt needs room, too."""
    for task in tasks.values():
        if task.get_config("output_type") != "generate_until":
            continue
        own = int((task.get_config("generation_kwargs") or {}).get("max_gen_toks", 256))
        length = min(most or own, context // 2)
        if length != own or most:
            task.set_config(key="generation_kwargs", value={"max_gen_toks": length}, update=True)


@contextlib.contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    """Turn errors of the harness on local rows into bad input. Rows of a wrong form fail anywhere inside of it."""
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        if settings.data_dir is None:
            raise
        raise HoldfastError(
            f"the harness failed on the rows of --data-dir {settings.data_dir} ({type(error).__name__}: {error})",
            hint=_FORM,
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send what the harness prints to stderr, without its progress bars, and log only errors."""
    logs = [logging.getLogger(name) for name in ("lm_eval", "transformers")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
