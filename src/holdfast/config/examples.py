"""Three examples per command, as ``--help`` shows them. A test gives each to its command, and runs those that look
before they do anything (``--dry-run``).
"""

from __future__ import annotations

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "tune": (
        ("look before training: every token with its weight", "--model pocket --data pocket:instructions "
         "--prompt-weight 0.1 --output runs/first --dry-run"),
        ("train a model of the hub with LoRA on your rows", "--model Qwen/Qwen2.5-0.5B --data rows.jsonl "
         "--prompt-weight 0.1 --lora-rank 16 --output runs/mine"),
        ("options from a file, one of them changed", "--config tune.yaml --learning-rate 1e-4 --output runs/second"),
    ),
    "audit": (
        ("who pays for which token", "--model pocket --data pocket:instructions --limit 200"),
        ("the data of a run that is planned", "--config tune.yaml"),
        ("what another trainer has prepared, with the rows it was made from", "--model MODEL --prepared prepared "
         "--data rows.jsonl"),
    ),
    "weigh": (
        ("count what would be scored", "--model pocket --data pocket:instructions --output runs/weighed --dry-run"),
        ("keep the half of the tokens that a clean model finds easier", "--model pocket --reference runs/clean "
         "--data rows.jsonl --keep 0.5 --output runs/weighed"),
        ("keep the tokens that surprise the model", "--model runs/first --data rows.jsonl --by surprise "
         "--output runs/surprise"),
    ),
    "align": (
        ("look before training", "--model pocket --data pocket:preferences --output runs/aligned --dry-run"),
        ("DPO from where a tuned model stands", "--model runs/first --data pairs.jsonl --output runs/aligned"),
        ("another loss, held more strongly to the start", "--model runs/first --data pairs.jsonl --loss ipo --beta 0.3 "
         "--output runs/ipo"),
    ),
    "sensitivity run": (
        ("what would be asked", "--model pocket --sets pocket:intents --output runs/wording --dry-run"),
        ("your prompts, with typos and templates", "--model runs/first --prompts prompts.jsonl --recipe paper "
         "--output runs/mine"),
        ("a model behind a chat endpoint", "--model gpt-4o-mini --backend chat --endpoint https://api.openai.com/v1 "
         "--prompts prompts.jsonl --variants spelling,casing --output runs/served"),
    ),
    "sensitivity variants": (
        ("five typing errors of each prompt", "--prompts prompts.jsonl --variants spelling --per-kind 5 "
         "--output runs/variants"),
        ("the variants of the paper, and your own paraphrases", "--prompts prompts.jsonl --recipe paper "
         "--paraphrases paraphrases.jsonl --output runs/variants"),
        ("paraphrases written by a served model", "--prompts prompts.jsonl --variants paraphrases "
         "--paraphrase-model http://localhost:8000/v1#llama --output runs/variants"),
    ),
    "sensitivity compare": (
        ("is B steadier than A?", "runs/base runs/tuned"),
        ("keep the numbers", "runs/base runs/tuned --output runs/compared"),
        ("for a script", "runs/base runs/tuned --json"),
    ),
    "sensitivity check": (
        ("in CI: exit code 1 if the run is worse", "runs/new --baseline runs/base"),
        ("allow more", "runs/new --baseline runs/base --max-increase 0.05"),
        ("leave JUnit XML and a summary", "runs/new --baseline runs/base --output runs/check"),
    ),
    "crosstask run": (
        ("what would be asked", "--model pocket --sources pocket:tasks --target pocket:tasks/sentiment "
         "--output runs/transfer --dry-run"),
        ("your folder of tasks, one of them as the target", "--model pocket --sources tasks --target tasks/reviews "
         "--output runs/mine"),
        ("choose the source on ten labelled items", "--model runs/first --sources tasks --target tasks/reviews "
         "--dev-items 10 --output runs/chosen"),
    ),
    "crosstask label": (
        ("what would be labelled", "--model pocket --sources pocket:tasks --target pocket:tasks/sentiment "
         "--output runs/labels --dry-run"),
        ("label your inputs, and keep what is clear", "--model runs/first --sources tasks --target tasks/reviews "
         "--pool inputs.jsonl --least-margin 0.5 --output runs/labels"),
        ("ask about 200 inputs, spread the labels to the others", "--model runs/first --sources tasks "
         "--target tasks/reviews --pool inputs.jsonl --lm-items 200 --propagate knn --output runs/spread"),
    ),
    "crosstask analyse": (
        ("of a run with --states", "--run runs/transfer --output runs/why"),
        ("more permutations, for small p-values", "--run runs/transfer --permutations 50000 --output runs/why"),
        ("for a script", "--run runs/transfer --output runs/why --json"),
    ),
    "bench run": (
        ("answers to open questions, 20 of each benchmark", "--model runs/first --suite chat --limit 20 "
         "--output runs/answers"),
        ("MMLU and IFEval, 50 items of each", "--model runs/first --suite knowledge,instructions --limit 50 "
         "--output runs/bench"),
        ("any task of lm-evaluation-harness", "--model Qwen/Qwen2.5-0.5B --tasks arc_easy,gsm8k --output runs/bench"),
    ),
    "bench compare": (
        ("is B better than A?", "runs/bench-base runs/bench-tuned"),
        ("keep the numbers", "runs/bench-base runs/bench-tuned --output runs/compared"),
        ("for a script", "runs/bench-base runs/bench-tuned --json"),
    ),
    "study plan": (
        ("what the built-in study would do", "pocket"),
        ("what yours would do and cost", "study.yaml"),
        ("with an estimate of the hours, from a short training", "study.yaml --calibrate 4"),
    ),
    "study run": (
        ("the built-in study", "pocket --output runs/study"),
        ("yours, four trials at a time", "study.yaml --slots 4"),
        ("a small try of it", "study.yaml --limit 100 --output runs/try"),
    ),
    "study best": (
        ("the chosen weights", "runs/study"),
        ("as a YAML file for `tune --config`", "runs/study --output runs/best"),
        ("what a table from elsewhere supports", "results.csv --metric accuracy"),
    ),
    "report": (
        ("a page of one run", "runs/first"),
        ("of several, under another name", "runs/study runs/wording -o page.html"),
        ("with tables for a paper", "runs/study --format html,md,csv"),
    ),
    "demo": (
        ("the study and its report, in holdfast-demo", ""),
        ("elsewhere", "--output runs/demo"),
        ("a shorter one", "--limit 500 --output runs/short"),
    ),
}  # fmt: skip
"""Command -> three examples: what it does, and the arguments."""
