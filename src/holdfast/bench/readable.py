"""What the harness cannot read or score: said before a model is loaded where that can be seen, and kept to its own task
where it cannot.

One made-up answer goes through a task's filters, scoring and aggregation: what is not installed on this machine shows
then.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from holdfast.bench.suites import Pin
from holdfast.errors import HoldfastError

Failures = dict[str, dict[str, str]]
"""Task -> metric (empty: all of them) -> why it has no score."""
_ANSWERS: dict[str, Any] = {"loglikelihood": (-1.0, False), "loglikelihood_rolling": -1.0, "generate_until": ""}
_ASIDE = ("metadata", "task_alias", "group_alias", "alias", "weight_by_size", "tag", "group")
"""Settings of a task that change no score."""


def check_readable(name: str, task: Any, seed: int) -> None:
    """Try a made-up answer to the first question. A task may refuse it for what it says; only what is missing here
    counts.

    Raises:
        HoldfastError: a package, a metric or data that is not there, or a task that this command does not run.
    """
    if getattr(task, "UNSAFE_CODE", False):
        raise HoldfastError(
            f"task {name} runs code that a model has written; bench run does not", hint="the harness's own command can"
        )
    if getattr(task, "MULTIMODAL", False):
        raise HoldfastError(f"task {name} asks about images or sounds; bench run asks with text")
    metrics = getattr(task, "_metric_fn_list", {})
    lost = [
        metric for metric, function in metrics.items() if function is None and not task.get_config("process_results")
    ]
    if lost:
        raise HoldfastError(
            f"task {name}: metric '{lost[0]}' is none of the harness's, and the package `evaluate` cannot load it here",
            hint="it is downloaded from the hub; once it is there, the run may be offline",
        )
    task.build_all_requests(limit=1, rank=0, world_size=1)
    task.set_fewshot_seed(seed=seed)  # the trial has drawn examples
    try:
        _try(task)
    except ImportError as error:
        raise HoldfastError(
            f"task {name}: its scores need a package that is missing or broken: {error}", hint="pip install it"
        ) from error
    except Exception as error:
        if type(error) is LookupError or isinstance(error, OSError):  # nltk's; and the hub's, or of files
            text = " ".join(str(error).replace("*", "").split())
            raise HoldfastError(f"task {name}: its scores need what is not on this machine: {text}") from error


def check_alike(name: str, task: Any, other: Any, benchmark: str) -> None:
    """A task may be in two benchmarks; its answers are made once.

    Raises:
        HoldfastError: the two ask in different ways.
    """
    if other is None:
        return
    settings = [_settings(each) for each in (task, other)]
    changed = sorted(
        key for key in settings[0].keys() | settings[1].keys() if settings[0].get(key) != settings[1].get(key)
    )
    if changed:
        raise HoldfastError(
            f"task {name} is in two of the benchmarks, with other settings in {benchmark} ({', '.join(changed)})",
            hint="measure them in two runs",
        )


def check_halves(name: str, loaded: dict[str, Any], limit: int | None) -> None:
    """Dev and test are halves of the items.

    Raises:
        HoldfastError: a task has no two items.
    """
    for task in loaded["benchmarks"][name]:
        size = len(loaded["tasks"][task].eval_docs)
        if min(size, limit or size) < 2:
            raise HoldfastError(
                f"lm_eval:{name}: dev and test are halves of a task's items; {task} has no two items with limit {limit}"
            )


def check_direction(pin: Pin, loaded: dict[str, Any], higher_is_better: bool | None) -> None:
    """Whether what is asked for as better is what the task says.

    Raises:
        HoldfastError: it is not.
    """
    for name in loaded["benchmarks"][pin.task]:
        metric = _main_metric(pin, loaded["tasks"][name])
        own = loaded["tasks"][name].higher_is_better().get(metric)
        if isinstance(own, bool) and higher_is_better is not None and own != higher_is_better:
            raise HoldfastError(
                f"lm_eval:{pin.task}: of {metric} {'higher' if own else 'lower'} is better, as its task says",
                hint=f"lm_eval:{pin.task}: {{higher_is_better: {str(own).lower()}}}",
            )


@contextlib.contextmanager
def going_on(loaded: dict[str, Any]) -> Iterator[Failures]:
    """While this lasts, scoring that fails costs its own task, an aggregation its own metric, and either the groups
    that need it.
    """
    from lm_eval import evaluator_utils

    failures: Failures = {}
    for name, task in loaded["tasks"].items():
        task.process_results = _kept(name, task.process_results, failures)
    for group in loaded["groups"].values():
        group.aggregate = _whole(group, group.aggregate, failures)
    original = evaluator_utils._compute_task_aggregations
    evaluator_utils._compute_task_aggregations = _one_by_one(original, failures)
    try:
        yield failures
    finally:
        evaluator_utils._compute_task_aggregations = original
        for each in (*loaded["tasks"].values(), *loaded["groups"].values()):
            each.__dict__.pop("process_results", None)
            each.__dict__.pop("aggregate", None)


def _kept(name: str, score: Callable[..., Any], failures: Failures) -> Callable[..., Any]:
    def process_results(doc: Any, results: Any) -> Any:
        if "" in failures.get(name, {}):
            return {}
        try:
            return score(doc, results)
        except Exception as error:  # whatever a task's own code raises
            failures.setdefault(name, {})[""] = _said(error)
            return {}

    return process_results


def _one_by_one(aggregate: Callable[..., Any], failures: Failures) -> Callable[..., Any]:
    def compute(
        task: Any, raw_metrics: dict[Any, list[Any]], bootstrap_iters: int | None = 0
    ) -> tuple[dict[str, Any], int]:
        name = task.task_name
        if "" in failures.get(name, {}):
            return {}, 0
        numbers: dict[str, Any] = {}
        for key, items in raw_metrics.items():
            try:
                numbers |= _aggregated(aggregate, task, {key: items}, bootstrap_iters)
            except Exception as error:  # whatever a task's own code raises
                failures.setdefault(name, {})[f"{key[0]},{key[1]}"] = _said(error)
        return numbers, max(map(len, raw_metrics.values()), default=0)

    return compute


def _aggregated(
    aggregate: Callable[..., Any], task: Any, metric: dict[Any, list[Any]], draws: int | None
) -> dict[str, Any]:
    try:
        return dict(aggregate(task, metric, draws)[0])
    except Exception:  # the number may be there, and its standard error not
        return dict(aggregate(task, metric, 0)[0])


def _whole(group: Any, aggregate: Callable[..., Any], failures: Failures) -> Callable[..., Any]:
    def of_all(metrics: dict[str, Any]) -> dict[str, Any]:
        try:
            numbers = dict(aggregate(metrics))
        except Exception as error:  # of numbers that are none
            numbers = {"name": group.name, "alias": group.alias or group.name}
            failures.setdefault(group.name, {})[""] = _said(error)
        lost = {metric for task in group.get_all_tasks() for metric in failures.get(task.task_name, {})}
        if not lost:
            return numbers
        return {
            key: value
            for key, value in numbers.items()
            if "," not in key or ("" not in lost and key.replace("_stderr,", ",") not in lost)
        }

    return of_all


def _try(task: Any) -> None:
    """Score a made-up answer as the harness would; twice the same item is what an aggregation gets."""
    for instance in task.instances:
        instance.resps = [_ANSWERS[instance.request_type]] * max(1, instance.repeats)
    task.apply_filters()
    for name in task.instances[0].filtered_resps:
        for metric, value in task.process_results(
            task.instances[0].doc, [i.filtered_resps[name] for i in task.instances]
        ).items():
            function = (task.aggregation() or {}).get(metric)
            if function is not None:
                function([value, value])


def _settings(task: Any) -> dict[str, str]:
    """What a task asks and how it counts, as text; the place in memory of a function is none of it."""
    return {
        key: re.sub(r" at 0x[0-9a-f]+", "", str(value))
        for key, value in task.dump_config().items()
        if key not in _ASIDE
    }


def _main_metric(pin: Pin, task: Any) -> str:
    """The metric that counts, as far as a task says so before it has scored anything."""
    names = list(task.aggregation() or {})
    pinned = pin.metric.rpartition(",")[0]
    return pinned if pinned in names else next(iter(names), "")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
