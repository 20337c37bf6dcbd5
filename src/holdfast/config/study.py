"""Options of `study`, of `report` and of `demo`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from holdfast.config.base import Range, RunConfig


@dataclass(kw_only=True)
class StudyConfig(RunConfig):
    """Find the weights that suit a model and its data: train and measure many settings, choose on one split, report on
    another."""

    positional: ClassVar[tuple[str, ...]] = ("study",)
    study: str
    """Study file (YAML, see docs/study.md), or `pocket` for the built-in one."""
    output: str = ""
    """Study directory. An existing study is continued: only what is missing is trained. Default: studies/NAME."""
    limit: int | None = None
    """Use only the first N training examples, whatever the file says."""
    seed: int = 0
    """Number added to the seeds of the file."""
    cluster: Literal["local", "ray"] = "local"
    """Where trials run: on this machine, or on the Ray cluster at RAY_ADDRESS, whose nodes must all see --output (extra
    `ray`)."""
    slots: Annotated[int | None, Range(ge=1)] = None
    """Trials at a time, each in a process of its own. Default: one per GPU, else one per core; two on Ray."""
    calibrate: Annotated[int, Range(ge=0)] = 0
    """Train so many steps, such as 4, from which `study plan` estimates hours; 0: no training, no estimate. `study run`
    does not use it."""


@dataclass(kw_only=True)
class BestConfig(RunConfig):
    """Print the chosen weights of a study for reuse in `tune`, or say what a CSV table of results from elsewhere
    supports."""

    positional: ClassVar[tuple[str, ...]] = ("source",)
    source: str
    """Study directory, or a CSV file with the columns prompt_weight and response_weight, whatever else tells settings
    apart, and scores."""
    metric: str = ""
    """Which score to choose by. Default: the one that the study was made for, or the only one of the table."""
    where: str = ""
    """Use only these rows of a table: column=value, comma separated. For a study with several models or data sets:
    group=NAME."""
    settings: str = ""
    """Numeric columns of a table that tell settings apart, comma separated, or none; all other numeric columns are then
    scores. Text, and hyperparameters such as rank or learning_rate, need not be named."""
    lower_is_better: bool = False
    """Smaller scores are better. This is known for a study's own metrics and for names with a word such as nll, loss,
    error, wer, perplexity or posix."""
    higher_is_better: bool = False
    """Larger scores are better, whatever the name says."""
    output: str = ""
    """Folder for best.json, and for a study best.yaml. Default: only print."""


@dataclass(kw_only=True)
class DemoConfig(RunConfig):
    """Tune the embedded model at three weightings, show what changed and what luck would have sold, and make a report.
    No network; about three minutes on two cores.
    """

    output: str = "holdfast-demo"
    """Study directory; the report is written into it."""
    limit: int | None = None
    """Training examples per run. Default: 4000, as the study says."""


@dataclass(kw_only=True)
class ReportConfig(RunConfig):
    """Make one offline HTML page of runs of any kind: studies, trainings, audits, measurements, benchmarks."""

    positional: ClassVar[tuple[str, ...]] = ("directories",)
    short: ClassVar[dict[str, str]] = {"-o": "--output"}
    directories: list[str] = field(default_factory=list)
    """Run directories, in the order in which they should appear."""
    output: str = "report.html"
    """The page. Other formats stand beside it: report.md, report-NN-NAME.csv and report-NN-NAME.png. An existing report
    is replaced."""
    format: str = "html"
    """What to write, comma separated: html, md (tables for papers and model cards), png (every figure; extra `png`),
    csv (every table)."""
    title: str | None = None
    """Title of the page. Default: the names of the runs."""
    limit: Annotated[int | None, Range(ge=0)] = None
    """Show N prompt sets of a sensitivity run in full, those that move most first. Default: 12."""
    overwrite: bool = False
    """Also replace a file at --output that is not a report."""
    dry_run: bool = False
    """List what would be on the page. Writes nothing."""
