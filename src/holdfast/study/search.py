"""Which trials are trained, and how far.

    grid, ratios      all of them, to the end
    halving           rungs at steps/f^2, steps/f, steps: at the end of each, the worse stop

Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943; asynchronous: Li et al. 2020, arXiv 1810.05934) is Optuna's: its
``SuccessiveHalvingPruner`` says who goes on. Trials of a rung are trained side by side and then shown to it one after another in a fixed
order, so what is decided depends neither on timing nor on a crash. Conventional tuning comes first, and the first is never stopped: the
reference is always trained to the end. The best of a rung is never stopped either.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.study.jobs import Job, Row, job_of
from holdfast.study.planning import Group, StudyPlan, Trial
from holdfast.study.spec import Search

_LEAST_STEPS = 8

Run = Callable[[list[Job]], Iterator[tuple[Job, Row]]]
"""Does jobs, or finds that they are done; yields as they end."""


def search(plan: StudyPlan, run: Run) -> Iterator[Row]:
    """Train what the search asks for; yields the final row of every trial, and of every group's untuned model."""
    bases = [job_of(plan, group, None) for group in plan.groups]
    if plan.spec.search.kind != "halving":
        jobs = bases + [job_of(plan, group, trial) for group in plan.groups for trial in group.trials]
        yield from (row for _, row in run(jobs))
        return
    yield from (row for _, row in run(bases))
    for group in plan.groups:
        yield from _halve(plan, group, run)


def rung_steps(steps: int, search: Search) -> list[int]:
    """Where the rungs end, the last being the end of the training. Rungs of fewer than eight steps are left out: at the end of a warm-up
    nothing has been learnt yet, and equal scores would stop trials by chance."""
    found = [steps // search.factor**k for k in range(search.rungs)]
    return sorted({step for step in found if step >= _LEAST_STEPS or step == steps})


def expected_tokens(plan: StudyPlan) -> int:
    """Of a halving search, if as many go on as its factor says, and with the first seed's survivors trained at every seed."""
    total = 0.0
    for group in plan.groups:
        first = [t for t in group.trials if t.seed == plan.spec.seeds[0]]
        alive = [float(len(first))]
        ends = rung_steps(first[0].steps, plan.spec.search)
        for _ in ends[1:]:
            alive.append(max(2.0, alive[-1] / plan.spec.search.factor))
        shares = [(end - start) / ends[-1] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        tokens = sum(t.tokens for t in first) / len(first)
        total += tokens * (sum(a * s for a, s in zip(alive, shares, strict=True)) + alive[-1] * (len(plan.spec.seeds) - 1))
    return round(total)


def check_search(plan: StudyPlan) -> None:
    """Halving needs Optuna, and trainings long enough to be stopped.

    Raises:
        HoldfastError: one of the two is missing.
    """
    if plan.spec.search.kind != "halving":
        return
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise HoldfastError("search: halving needs Optuna", hint="pip install 'holdfast[study]'") from error
    for trial in plan.trials:
        if len(rung_steps(trial.steps, plan.spec.search)) < 2:
            raise HoldfastError(f"search: halving: {trial.steps} steps are too few to stop early", hint="train longer, or search: ratios")


def _halve(plan: StudyPlan, group: Group, run: Run) -> Iterator[Row]:
    """The first seed decides which settings survive; those are then trained at the other seeds, for the noise estimate."""
    first = [t for t in group.trials if t.seed == plan.spec.seeds[0]]
    survivors: list[Trial] = []
    for row, trial in _rungs(plan, group, first, run):
        if row["status"] == "done":
            survivors.append(trial)
        yield row
    settings = {(t.setting_name, t.twin) for t in survivors}
    others = [t for t in group.trials if t.seed != plan.spec.seeds[0] and (t.setting_name, t.twin) in settings]
    last = len(rung_steps(first[0].steps, plan.spec.search)) - 1
    yield from (row for _, row in run([job_of(plan, group, t, rung=last) for t in others]))


def _rungs(plan: StudyPlan, group: Group, trials: Sequence[Trial], run: Run) -> Iterator[tuple[Row, Trial]]:
    """Final rows: of those that stop as they stop, of the survivors at the end."""
    judge = _Judge(plan, _order(trials, plan.spec.seeds[0]))
    alive = list(judge.order)
    ends = len(rung_steps(trials[0].steps, plan.spec.search))
    for rung in range(ends):
        jobs = [_rung_job(plan, group, trial, rung) for trial in alive]
        rows = {job.trial.id: row for job, row in run(jobs) if job.trial}
        if rung == ends - 1:
            yield from ((rows[t.id], t) for t in alive)
            return
        goes_on = judge.promoted([(t, rows[t.id]) for t in alive], rung)
        yield from ((rows[t.id], t) for t in alive if t.id not in goes_on)
        alive = [t for t in alive if t.id in goes_on]


def _rung_job(plan: StudyPlan, group: Group, trial: Trial, rung: int) -> Job:
    ends = rung_steps(trial.steps, plan.spec.search)
    stop_at = ends[rung] if rung < len(ends) - 1 else None
    return job_of(plan, group, trial, rung=rung, stop_at=stop_at, rung_metric=plan.spec.search.metric)


def _order(trials: Sequence[Trial], seed: int) -> list[Trial]:
    """Conventional first, the others shuffled: who comes early has it easier, which must not be a matter of the weights."""
    usual = [t for t in trials if t.conventional]
    others = [t for t in trials if not t.conventional]
    random.Random(seed).shuffle(others)
    return usual + others


class _Judge:
    """Optuna's pruner, told of trials in a fixed order. It counts in rungs: one unit of resource is the first of them."""

    def __init__(self, plan: StudyPlan, order: list[Trial]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        spec, self.order = plan.spec, order
        better = dict(_directions(plan))[spec.search.metric]
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=spec.search.factor)
        study = optuna.create_study(direction="maximize" if better else "minimize", pruner=pruner)
        self.metric, self.factor = spec.search.metric, spec.search.factor
        self.known = {trial.id: study.ask() for trial in order}

    def promoted(self, rows: list[tuple[Trial, Row]], rung: int) -> set[str]:
        """The ids of those that go on."""
        made = set()
        for trial, row in rows:
            value = row["dev"].get(self.metric) if row["status"] != "failed" else None
            asked: Any = self.known[trial.id]
            asked.report(math.nan if value is None else value, self.factor**rung)
            if not asked.should_prune():
                made.add(trial.id)
        return made


def _directions(plan: StudyPlan) -> dict[str, bool]:
    from holdfast.study.measures import selectable

    return selectable(plan.spec.measures)
