"""Which trials are trained, and how far.

    grid, ratios      all trials, to the end
    halving           rungs end at steps/f^2, steps/f, steps; at the end of each, the worse trials stop

Successive halving: Jamieson and Talwalkar 2016, arXiv 1502.07943. The trials of a rung are compared when all have
ended, so which of them go on depends neither on timing nor on a crash. (In the asynchronous form, Li et al. 2020, arXiv
1810.05934, the first trial to reach the end of a rung goes on, as it has no rivals yet.) Conventional tuning is the
reference, so it is always trained to the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from holdfast.errors import HoldfastError
from holdfast.study.jobs import Job, Row, job_of
from holdfast.study.measures import selectable
from holdfast.study.planning import Group, StudyPlan, Trial
from holdfast.study.spec import SearchSpec, Spec

_LEAST_STEPS = 8

RunJobs = Callable[[list[Job]], Iterator[tuple[Job, Row]]]
"""Does the jobs that are not done yet, and yields every job with its row as it ends."""


def search(plan: StudyPlan, run: RunJobs) -> Iterator[Row]:
    """Train what the search asks for. Yields the final row of every trial, and of every group's untuned model."""
    jobs = [job_of(plan, group, None) for group in plan.groups]
    if plan.spec.search.kind != "halving":
        for group in plan.groups:
            jobs += [job_of(plan, group, trial) for trial in group.trials]
    yield from (row for _, row in run(jobs))
    for group in plan.groups if plan.spec.search.kind == "halving" else ():
        yield from _halve(plan, group, run)


def rung_steps(steps: int, search: SearchSpec) -> list[int]:
    """Return the steps at which rungs end; the last is the end of the training. Rungs of fewer than eight steps are
    left out: little is learnt while the learning rate warms up, and near-equal scores would stop trials by chance."""
    ends = [steps // search.factor**k for k in range(search.rungs)]
    return sorted({step for step in ends if step >= _LEAST_STEPS or step == steps})


def expected_tokens(plan: StudyPlan) -> int:
    """Return the training tokens that a halving search is expected to take: of the first seed one trial in ``factor``
    survives a rung, and conventional tuning beside it; the survivors are trained with every other seed.
    """
    total = 0.0
    for group in plan.groups:
        first = [t for t in group.trials if t.seed == plan.spec.seeds[0]]
        usual = sum(t.conventional for t in first)
        alive = [len(first)]
        ends = rung_steps(first[0].steps, plan.spec.search)
        for _ in ends[1:]:
            alive.append(min(alive[-1], max(1, alive[-1] // plan.spec.search.factor) + usual))
        shares = [(end - start) / ends[-1] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        tokens = sum(t.tokens for t in first) / len(first)
        total += tokens * (
            sum(a * s for a, s in zip(alive, shares, strict=True)) + alive[-1] * (len(plan.spec.seeds) - 1)
        )
    return round(total)


def check_search(plan: StudyPlan) -> None:
    """Check that the trainings of a halving search are long enough to be stopped.

    Raises:
        HoldfastError: they are too short.
    """
    for trial in plan.trials if plan.spec.search.kind == "halving" else ():
        if len(rung_steps(trial.steps, plan.spec.search)) < 2:
            raise HoldfastError(
                f"search: halving: {trial.steps} steps are too few to stop early",
                hint="train longer, or search: ratios",
            )


def _halve(plan: StudyPlan, group: Group, run: RunJobs) -> Iterator[Row]:
    """Let the first seed decide which settings survive, then train those with the other seeds, to see the noise."""
    first = [t for t in group.trials if t.seed == plan.spec.seeds[0]]
    settings: set[tuple[str, int]] = set()
    for row, trial in _rungs(plan, group, first, run):
        settings |= {(trial.setting_name, trial.twin)} if row["status"] == "done" else set()
        yield row
    others = [t for t in group.trials if t.seed != plan.spec.seeds[0] and (t.setting_name, t.twin) in settings]
    last = len(rung_steps(first[0].steps, plan.spec.search)) - 1
    jobs = [job_of(plan, group, trial, rung=last) for trial in others]
    yield from (row for _, row in run(jobs))


def _rungs(plan: StudyPlan, group: Group, trials: Sequence[Trial], run: RunJobs) -> Iterator[tuple[Row, Trial]]:
    """Yield final rows: those of trials that stop as they stop, and those of the survivors at the end."""
    alive = list(trials)
    ends = len(rung_steps(trials[0].steps, plan.spec.search))
    for rung in range(ends):
        jobs = [_rung_job(plan, group, trial, rung) for trial in alive]
        rows = {job.trial.id: row for job, row in run(jobs) if job.trial}
        survivors: set[str] = set()
        if rung < ends - 1:
            survivors = _survivors(plan.spec, alive, rows)
            rows = {t.id: _with_gap(plan.spec, t, alive, rows) for t in alive}
        yield from ((rows[t.id], t) for t in alive if t.id not in survivors)
        alive = [t for t in alive if t.id in survivors]


def _with_gap(spec: Spec, trial: Trial, trials: Sequence[Trial], rows: Mapping[str, Row]) -> Row:
    """Return the row of a trial that may stop here, with the step and its gap to conventional tuning at that step."""
    row, metric = rows[trial.id], spec.search.metric
    if row["status"] != "stopped":
        return row
    sign = 1 if selectable(spec.measures)[metric] else -1
    usual = [sign * score for t in trials if t.conventional and (score := rows[t.id]["dev"].get(metric)) is not None]
    score = row["dev"].get(metric)
    behind = max(usual) - sign * score if usual and score is not None else None
    return row | {
        "stopped_at": {"step": row["steps"], "steps": trial.steps, "metric": metric, "score": score, "behind": behind}
    }


def _rung_job(plan: StudyPlan, group: Group, trial: Trial, rung: int) -> Job:
    ends = rung_steps(trial.steps, plan.spec.search)
    stop_at = ends[rung] if rung < len(ends) - 1 else None
    return job_of(plan, group, trial, rung=rung, stop_at=stop_at, rung_metric=plan.spec.search.metric)


def _survivors(spec: Spec, trials: Sequence[Trial], rows: Mapping[str, Row]) -> set[str]:
    working = [t for t in trials if rows[t.id]["status"] != "failed"]
    values = {t.id: rows[t.id]["dev"].get(spec.search.metric) for t in working}
    scores = {trial: math.nan if value is None else float(value) for trial, value in values.items()}
    better = selectable(spec.measures)[spec.search.metric]
    return promoted(scores, spec.search.factor, higher_is_better=better) | {t.id for t in working if t.conventional}


def promoted(scores: Mapping[str, float], factor: int, *, higher_is_better: bool) -> set[str]:
    """Return which of the trials with these scores at the end of a rung go on: all that are at least as good as the
    k-th best, where k is the number of scores over ``factor``, at least 1. One whose score is NaN does not count.

    >>> sorted(promoted({"a": 1.0, "b": 2.0, "c": 2.0, "d": float("nan")}, 3, higher_is_better=True))
    ['b', 'c']
    """
    losses = {name: -score if higher_is_better else score for name, score in scores.items() if not math.isnan(score)}
    if not losses:
        return set()
    worst_kept = sorted(losses.values())[max(1, len(losses) // factor) - 1]
    return {name for name, loss in losses.items() if loss <= worst_kept}
