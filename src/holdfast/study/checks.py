"""What would fail only once models are trained is tried before: the Trainer's arguments, the pairs of the second stage.

Both take torch, which a plan does without otherwise; so they are looked at only where a study file names them.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from holdfast.chat import only_template
from holdfast.config import AlignConfig, TuneConfig
from holdfast.errors import HoldfastError
from holdfast.study.planning import StudyPlan

_OPEN = {"training": {}, "schedule": TuneConfig(model="", data="", output="").schedule}
"""Options that the Trainer alone can judge, and their defaults."""


def check_trainings(plan: StudyPlan) -> None:
    """Make the Trainer's arguments of every kind of training.

    Raises:
        HoldfastError: it does not know an argument, or refuses a value.
    """
    asked = [t for t in plan.trials if any(t.tune[name] != usual for name, usual in _OPEN.items())]
    for trial in {json.dumps([t.tune[name] for name in _OPEN], sort_keys=True): t for t in asked}.values():
        from holdfast.tune.arguments import training_arguments

        config = TuneConfig(**trial.tune, output="")
        schedule: Any = SimpleNamespace(
            config=config,
            held_out=[None],
            learning_rate=config.learning_rate,
            micro_batch=1,
            accumulation=1,
            steps=trial.steps,
        )
        training_arguments(schedule, Path(), use_cpu=True)  # no context on a GPU that workers are to use


def check_second_stage(plan: StudyPlan) -> None:
    """Read the pairs of ``then: {align: ..}`` as it will, with the templates that the first stage will have been
    trained with.

    Raises:
        HoldfastError: whatever `holdfast align` would refuse before it trains.
    """
    options = plan.spec.then.get("align")
    if options is None:
        return
    from holdfast.align.plan import make_plan
    from holdfast.tune.arguments import training_arguments

    for model, template in dict.fromkeys(
        (g.model, _template(options, f.report["templates"])) for g in plan.groups for f in g.facts
    ):
        try:
            align_plan = make_plan(
                AlignConfig(
                    **{**options, "model": model, "template": template, "output": "", "seed": plan.spec.seeds[0]}
                )
            )
            from trl import DPOConfig  # which ``make_plan`` says how to install

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # between TRL and transformers
                training_arguments(align_plan, Path(), DPOConfig, loss_type=align_plan.losses, use_cpu=True)
        except HoldfastError as error:
            raise HoldfastError(f"then.align: {error.message}", hint=error.hint) from error


def _template(options: dict[str, Any], first: dict[str, int]) -> str:
    """As `align` chooses it after a training with these templates."""
    template = str(options.get("template", "auto"))
    return template if template != "auto" else only_template(first) or "auto"
