"""Plan -> errors that would show only once models are trained: in the Trainer's arguments and the second stage's pairs.

Both checks load torch, which a plan needs for nothing else, so they are made only where a study file asks for them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from holdfast.config import AlignConfig, TuneConfig
from holdfast.data.chat_template import only_template
from holdfast.errors import HoldfastError
from holdfast.study.planning import StudyPlan, Trial

_FOR_THE_TRAINER = {"training": {}, "schedule": TuneConfig(model="", data="", output="").schedule}
"""Options that only the Trainer can check, and their defaults."""


def check_trainings(plan: StudyPlan) -> None:
    """Make the Trainer's arguments once for every combination of its options.

    Raises:
        HoldfastError: the Trainer does not know an argument, or refuses a value.
    """
    kinds: dict[str, Trial] = {}
    for trial in plan.trials:
        options = {name: trial.tune[name] for name in _FOR_THE_TRAINER}
        if options != _FOR_THE_TRAINER:
            kinds[json.dumps(options, sort_keys=True)] = trial
    for trial in kinds.values():
        from holdfast.tune.arguments import Schedule, training_arguments

        config = TuneConfig(**trial.tune, output="")
        schedule = Schedule(config, [None], config.learning_rate or 0.0, 1, 1, trial.steps)
        training_arguments(schedule, Path(), use_cpu=True)  # no context on a GPU that workers are to use


def check_second_stage(plan: StudyPlan) -> None:
    """Read the pairs of ``then: {align: ..}`` as `holdfast align` will, with the templates of the first stage.

    Raises:
        HoldfastError: whatever `holdfast align` would refuse before it trains.
    """
    options = plan.spec.then.get("align")
    if options is None:
        return
    from holdfast.align.plan import make_plan
    from holdfast.tune.arguments import training_arguments

    asked: dict[tuple[str, str], None] = {}
    for group in plan.groups:
        asked |= dict.fromkeys((group.model, _template(options, facts.report["templates"])) for facts in group.facts)
    for model, template in asked:
        try:
            align_plan = make_plan(
                AlignConfig(
                    **{**options, "model": model, "template": template, "output": "", "seed": plan.spec.seeds[0]}
                )
            )
            from trl import DPOConfig  # which ``make_plan`` says how to install

            training_arguments(align_plan, Path(), DPOConfig, loss_type=align_plan.losses, use_cpu=True)
        except HoldfastError as error:
            raise HoldfastError(f"then.align: {error.message}", hint=error.hint) from error


def _template(options: dict[str, Any], first: dict[str, int]) -> str:
    """Return the template that `align` chooses after a training with these templates."""
    template = str(options.get("template", "auto"))
    return template if template != "auto" else only_template(first) or "auto"
