"""Tasks that cannot be read or scored -> errors before a model is loaded, or failures that stay with their task.

Before the run one made-up answer goes through a task's filters, scoring and aggregation, which shows what is not
installed. During the run a failure costs only the task or metric that it happens in.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

from holdfast.bench.suites import Pin
from holdfast.errors import HoldfastError

Failures = dict[str, dict[str, str]]
"""Task -> metric (empty: all of them) -> why it has no score."""
_ANSWERS: dict[str, Any] = {"loglikelihood": (-1.0, False), "loglikelihood_rolling": -1.0, "generate_until": ""}
_ASIDE = ("metadata", "task_alias", "group_alias", "alias", "weight_by_size", "tag", "group")
"""Options of a task that change no score."""


def check_readable(name: str, task: Any, seed: int) -> None:
    """Try a made-up answer to the first question. A task may refuse its content; only what is not installed counts.

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
    task.set_fewshot_seed(seed=seed)  # building requests has drawn examples
    try:
        _try(task)
    except ImportError as error:
        raise HoldfastError(
            f"task {name}: its scores need a package that is missing or broken: {error}", hint="pip install it"
        ) from error
    except Exception as error:
        if type(error) is LookupError or isinstance(error, OSError):  # of nltk; of the hub, or of files
            text = " ".join(str(error).replace("*", "").split())
            raise HoldfastError(f"task {name}: its scores need what is not on this machine: {text}") from error


def check_alike(name: str, task: Any, other: Any, benchmark: str) -> None:
    """Check that a task which is in two benchmarks has the same options in both, because it is run once.

    Raises:
        HoldfastError: the options differ.
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
    """Check that the items of every task can be halved into dev and test.

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
    """Check that the direction that a study asks for is the task's.

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
    """Keep failures to their place while this lasts: failed scoring costs its task, a failed aggregation its metric,
    and either costs the groups that need it."""
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
            failures.setdefault(name, {})[""] = _error_text(error)
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
                failures.setdefault(name, {})[f"{key[0]},{key[1]}"] = _error_text(error)
        return numbers, max(map(len, raw_metrics.values()), default=0)

    return compute


def _aggregated(
    aggregate: Callable[..., Any], task: Any, metric: dict[Any, list[Any]], draws: int | None
) -> dict[str, Any]:
    try:
        return dict(aggregate(task, metric, draws)[0])
    except Exception:  # it may be the standard error that fails, so try the number without it
        return dict(aggregate(task, metric, 0)[0])


def _whole(group: Any, aggregate: Callable[..., Any], failures: Failures) -> Callable[..., Any]:
    def of_all(metrics: dict[str, Any]) -> dict[str, Any]:
        try:
            numbers = dict(aggregate(metrics))
        except Exception as error:  # a task of the group has no number
            numbers = {"name": group.name, "alias": group.alias or group.name}
            failures.setdefault(group.name, {})[""] = _error_text(error)
        lost = set(itertools.chain.from_iterable(failures.get(task.task_name, {}) for task in group.get_all_tasks()))
        if not lost:
            return numbers
        return {
            key: value
            for key, value in numbers.items()
            if "," not in key or ("" not in lost and key.replace("_stderr,", ",") not in lost)
        }

    return of_all


def _try(task: Any) -> None:
    """Score a made-up answer as the harness does. The aggregation gets the item twice, as one may not be enough."""
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
    """Return a task's options as text, without the memory addresses of functions."""
    return {
        key: re.sub(r" at 0x[0-9a-f]+", "", str(value))
        for key, value in task.dump_config().items()
        if key not in _ASIDE
    }


def _main_metric(pin: Pin, task: Any) -> str:
    """Return the metric that counts, as far as a task that has scored nothing says so."""
    names = list(task.aggregation() or {})
    pinned = pin.metric.rpartition(",")[0]
    return pinned if pinned in names else next(iter(names), "")


def _error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
