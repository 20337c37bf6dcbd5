"""Options of `study`, of `report` and of `demo`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from holdfast.config.base import Range, RunConfig


@dataclass(kw_only=True)
class StudyConfig(RunConfig):
    """Find the weights that suit a model and its data: plan, train, measure, and choose on one split, report on
    another.
    """

    positional: ClassVar[tuple[str, ...]] = ("study",)
    study: str
    """Study file (YAML, see docs/study.md), or `pocket` for the one that is built in."""
    output: str = ""
    """Study directory. A study that is there is continued: only what is missing is trained. Default: studies/NAME."""
    limit: int | None = None
    """Use only the first N training examples, over what the file says."""
    seed: int = 0
    """Added to the seeds of the file."""
    cluster: Literal["local", "ray"] = "local"
    """Where trials run: on this machine, or on the Ray cluster at RAY_ADDRESS, whose nodes must all see --output (extra
    `ray`).
    """
    slots: Annotated[int | None, Range(ge=1)] = None
    """Trials at a time, each in a process of its own. Default: one per GPU, or one per core; on Ray two."""
    calibrate: Annotated[int, Range(ge=0)] = 4
    """Steps of a short real training from which the plan estimates hours. 0: no estimate. `study run` trains without
    it.
    """


@dataclass(kw_only=True)
class BestConfig(RunConfig):
    """Print the chosen weights of a study as a TuneConfig to reuse, or say what a CSV table of results from elsewhere
    supports.
    """

    positional: ClassVar[tuple[str, ...]] = ("source",)
    source: str
    """A study directory, or a CSV file with the columns prompt_weight, response_weight, what tells settings apart, and
    scores.
    """
    metric: str = ""
    """Which score. Default: the one the study was made for, or the only one of the table."""
    where: str = ""
    """Use only these lines of a table: column=value, comma separated. Of a study with several models or data sets:
    group=NAME.
    """
    settings: str = ""
    """Columns of a table that say which setting a run belongs to though they hold numbers, comma separated, or none;
    every other column of numbers is a score then. Text, and known hyperparameters such as rank or learning_rate, need
    not be named."""
    lower_is_better: bool = False
    """Smaller scores are better. Known without being told of a study's own metrics and of names with a word such as
    nll, loss, error, wer, perplexity or posix."""
    higher_is_better: bool = False
    """Larger scores are better, whatever the name says."""
    output: str = ""
    """Folder for best.json, and best.yaml from a study. Default: only print."""


@dataclass(kw_only=True)
class DemoConfig(RunConfig):
    """Run the study that ships with the package, three weightings of the embedded model, and make its report. No
    network, minutes.
    """

    output: str = "holdfast-demo"
    """Study directory; the report is written into it."""
    limit: int | None = None
    """Training examples per run. Default: what the study says, 4000."""


@dataclass(kw_only=True)
class ReportConfig(RunConfig):
    """Make one offline HTML page of run directories of any kind: studies, trainings, audits, measures, benchmarks."""

    positional: ClassVar[tuple[str, ...]] = ("directories",)
    short: ClassVar[dict[str, str]] = {"-o": "--output"}
    directories: list[str] = field(default_factory=list)
    """Run directories, in the order in which they are to appear."""
    output: str = "report.html"
    """The page. Other formats stand beside it: report.md, report-NN-NAME.csv and report-NN-NAME.png. A report that is
    there is replaced.
    """
    format: str = "html"
    """What to write, comma separated: html, md (tables for papers and model cards), png (every figure; extra `png`),
    csv (every table).
    """
    title: str | None = None
    """Title of the page. Default: the names of the runs."""
    limit: Annotated[int | None, Range(ge=0)] = None
    """Show so many prompt sets of a sensitivity run in full, those that move most first. Default: 12."""
    overwrite: bool = False
    """Also replace a file at --output that is no report."""
    dry_run: bool = False
    """List what would be on the page; write nothing."""
