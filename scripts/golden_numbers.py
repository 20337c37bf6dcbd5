"""Short runs of every command on `pocket` and on stories260k, and what they say. See ``make_golden.py``.

Every case is a list of command lines, run one after another in an empty folder in which ``inputs`` lies, and the model
stories260k.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from golden_case import NUMBERS, dump, perform, prepare

TUNE = (
    "tune --model {model} --data pocket:instructions --limit 16 --eval-share 0.25 --batch-size 4 --micro-batch-size 2"
    " --learning-rate 1e-4 --log-steps 1 --max-steps 3 --prompt-weight 0.2 --response-weight 0.8"
    " --max-grad-norm 0"  # as it was when the numbers were recorded; with LoRA, so was a weight decay of 0.1
)
SENSITIVITY = "sensitivity run --model {of} --sets variants --max-new-tokens 5 --bootstrap 200"
WIDE = "sensitivity run --model {of} --sets pocket:intents --limit 12 --max-new-tokens 4"
SOURCES = "pocket:tasks/colour_of,pocket:tasks/opposite,pocket:tasks/plural,pocket:tasks/topic"
BENCH = "bench run --tasks my_sums --data-dir inputs/bench --template none"
CASES = {
    "tune": [
        f"{TUNE} --output full",
        f"{TUNE} --output adapted --lora-rank 2 --weight-decay 0.1",
        f"{TUNE} --output padded --batching padded --head plain --normalizer weight-sum --truncation keep-end"
        " --max-length 40 --seed 3 --max-steps 2",
        f"{TUNE} --output roles --weights system 0 eos 0.5 --adaptive power:0.5 --schedule linear --max-grad-norm 1 "
        "--batching packed",
    ],
    "weigh": [
        f"{TUNE} --output tuned",
        "weigh --model {model} --data pocket:instructions --limit 16 --output surprise --keep 0.5 --scope sample",
        "weigh --model {model} --reference tuned --data pocket:instructions --limit 16 --output excess --rest 0.25",
        "tune --model {model} --data excess/data.jsonl --output on-weights --batch-size 4 --max-steps 2 --log-steps 1"
        " --max-grad-norm 0",
    ],
    "align": [
        "align --model {model} --data pocket:preferences --limit 16 --eval-share 0.5 --batch-size 4 "
        "--micro-batch-size 2"
        " --max-steps 3 --learning-rate 1e-4 --log-steps 1 --output aligned"
    ],
    "sensitivity": [
        f"{TUNE} --output tuned",
        "sensitivity variants --prompts inputs/prompts.jsonl --variants spelling,templates,casing --per-kind 2 "
        "--output variants",
        f"{SENSITIVITY} --output before".replace("{of}", "{model}"),
        f"{SENSITIVITY} --output after".replace("{of}", "tuned"),
        "sensitivity run --model {model} --sets pocket:intents --limit 2 --max-new-tokens 5 --pairs kinds --output "
        "intents --exact",
        "sensitivity compare before after --bootstrap 200",
        f"{WIDE} --output wide-before".replace("{of}", "{model}"),
        f"{WIDE} --output wide-after".replace("{of}", "tuned"),
        "sensitivity compare wide-before wide-after",
        "sensitivity check wide-after --baseline wide-before --max-increase 10",
        "sensitivity check after --baseline before --bootstrap 200 --max-increase 10",
        "sensitivity check before --baseline after --bootstrap 200 --max-increase 0",
    ],
    "crosstask": [
        f"crosstask run --model {{model}} --sources {SOURCES} --target pocket:tasks/sentiment --limit 6 --pool-limit 40"
        " --states --dev-items 4 --mixed colour_of opposite --in-task pool --output grid",
        "crosstask analyse --run grid --permutations 200 --output why",
        f"crosstask label --model {{model}} --sources {SOURCES} --target pocket:tasks/sentiment --limit 10 --lm-items "
        "6 --pool-limit 40"
        " --propagate knn --rounds 2 --least-margin 0.3 --output labels",
    ],
    "bench": [
        f"{TUNE} --output tuned",
        f"{BENCH} --model {{model}} --output before",
        f"{BENCH} --model tuned --output after",
        "bench compare before after --bootstrap 200",
    ],
    "plan": ["study plan inputs/{model}.yaml --calibrate 0"],
    "study": [
        "study run inputs/{model}.yaml --slots 2 --output study",
        "study best study",
        "report study --format md,csv --output report.md",
    ],
}
ONCE = {
    "table": [
        "study best inputs/results.csv --metric accuracy",
        "study best inputs/results.csv --metric loss --where kind=small",
        "study best inputs/results.csv --metric loss --where kind=small --higher-is-better",
    ]
}
MODELS = ("pocket", "stories260k")


def record(names: set[str]) -> None:
    """Write one file per case and model."""
    NUMBERS.mkdir(parents=True, exist_ok=True)
    cases = {
        f"{name}-{model}": [line.replace("{model}", model) for line in lines]
        for name, lines in CASES.items()
        for model in MODELS
    }
    for name, lines in (cases | ONCE).items():
        if not names or name in names:
            with tempfile.TemporaryDirectory() as folder:
                (NUMBERS / f"{name}.json").write_text(dump(outcomes(lines, Path(folder))), encoding="utf-8")


def outcomes(lines: list[str], folder: Path) -> list[dict[str, Any]]:
    """What every line leads to. Of a training that only makes a model for the lines behind it, no more than that it
    works; of many sets only the summary."""
    prepare(folder)
    made = []
    for line in lines:
        outcome = {"line": line} | perform(line)
        assert outcome["exit_code"] in (0, 1), outcome
        assert "summary" in outcome, outcome
        left_out = (
            {"summary", "rows"}
            if line.endswith(" --output tuned")
            else {"rows"}
            if " --output wide-" in line
            else set()
        )
        made.append({key: value for key, value in outcome.items() if key not in left_out})
    return made
