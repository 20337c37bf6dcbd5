"""The whole of ``holdfast sensitivity run``, top to bottom: config -> plan -> scores -> rows -> run directory.

``backends`` says where the model runs; a chat endpoint, which gives answers only, has a path of its own (``chat``).

OUTPUT/rows.jsonl     one row per set      OUTPUT/matrices/N.npz   logp_XY, len_Y, token_logp of set N
OUTPUT/sets.jsonl     what was measured    OUTPUT/cache/           scores, so that a killed run continues
OUTPUT/results_*.json, samples_*.jsonl     the shape of lm-evaluation-harness
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from holdfast import lm as models
from holdfast import runs
from holdfast.config import SensitivityConfig, VariantsConfig
from holdfast.data.read import source_digest
from holdfast.errors import HoldfastError
from holdfast.progress import Progress, begin
from holdfast.records import Ids
from holdfast.runs import RunDir, write_text
from holdfast.sensitivity import answers, words
from holdfast.sensitivity.backends import load_tokenizer, open_backend
from holdfast.sensitivity.chat import check_unused, measure_answers
from holdfast.sensitivity.export import write_harness_files
from holdfast.sensitivity.measurement import AnswerReading, measure_set, summarise, task_metrics
from holdfast.sensitivity.planning import SensitivityPlan, gather, make_plan, template_options
from holdfast.sensitivity.responses import Scores
from holdfast.sensitivity.sets import digest, write_sets
from holdfast.sensitivity.store import Store
from holdfast.sensitivity.task import SETS_PER_BATCH, Backend, ScoreTable, SetTask
from holdfast.tables import lines, with_tables
from holdfast.tables.text import counted

_PROMPTS_PER_BATCH = 64
"""Prompts of the sets that are scored together, unless one set has more."""


def measure(config: SensitivityConfig) -> dict[str, Any]:
    """Measure the sensitivity of a model and write a run directory.

    Args:
        config: see ``holdfast.config.SensitivityConfig``.

    Returns:
        The summary: POSIX and its companions by view with intervals, metrics with targets, cost, audit, counts. A run
        that is already complete in ``config.output`` is returned if its sets are the same; cells that are in the cache
        are never computed again.

    Raises:
        HoldfastError: bad input; nothing has been written then.

    >>> from holdfast.sensitivity import SensitivityConfig, measure
    >>> summary = measure(SensitivityConfig(model="pocket", sets="pocket:intents", chat=True, output="runs/posix",
    ...     limit=4, max_new_tokens=4))
    >>> summary["posix"]["all"]["sets"]
    4
    """
    _check(config)
    if config.backend == "chat":
        return measure_answers(config)
    check_unused(config)
    with runs.command(config, "sensitivity run") as run:
        config = cast(SensitivityConfig, run.config)  # with the day that its chat template prints, if it goes on
        tokenizer = load_tokenizer(config)
        date = models.print_date(tokenizer, config.date) if config.chat else None
        plan = make_plan(config, tokenizer)
        answers.check(config.answers, plan.sets)
        if config.dry_run:
            return _preview(plan, config, tokenizer)
        set_ids = [s.set_id for s in plan.sets]
        tasks = [
            SetTask.of(name, ids, list(views.values()))
            for name, ids, views in zip(set_ids, plan.ids, plan.views, strict=True)
        ]
        with open_backend(config, tokenizer) as backend:
            backend.check(tasks)
            resolved = {"sets_digest": plan.digest, **surroundings(config, tokenizer), **backend.identity()}
            resolved |= {"date": date} if date else {}
            if summary := run.finished(resolved=resolved):
                return summary
            run.open(resolved)
            begin(_start(plan, config, tokenizer))
            started = time.perf_counter()
            work = _score(tasks, words.unrelated_pairs(set_ids, plan.ids, config.seed), config, backend, run)
            seconds = round(time.perf_counter() - started, 2)
            reading = _reading(config, tokenizer)
            parts = zip(plan.sets, plan.ids, work.scored, plan.views, strict=True)
            rows = [measure_set(*one, reading) for one in parts]
            return _write(run, plan, config, work, rows, {
                "resolved": resolved,
                "cost": backend.cost(),
                "audit": work.audit,
                "seconds": seconds,
                "way": backend.way(),
            })  # fmt: skip


def make_variants(config: VariantsConfig) -> dict[str, Any]:
    """Write ``OUTPUT/sets.jsonl``: the prompts and their variants.

    Returns:
        Counts: sets, variants, and per kind how many were made, unchanged, repeated, or short.

    >>> from holdfast.sensitivity import VariantsConfig, make_variants
    >>> _ = open("prompts.jsonl", "w").write('{"prompt": "Name a colour of the rainbow."}\\n')
    >>> summary = make_variants(VariantsConfig(prompts="prompts.jsonl", variants="casing", per_kind=2,
    ...     output="runs/variants"))
    >>> summary["sets"], summary["variants"], summary["kinds"]["made"]
    (1, 3, {'casing': 2})
    """
    if config.prompts is None:
        raise HoldfastError(
            "--prompts is needed", hint="a JSONL file with rows of prompt, or of question (with choices and answer)"
        )
    with runs.command(config, "sensitivity variants") as run:
        sets, report = gather(config)
        summary: dict[str, Any] = {
            "command": "sensitivity variants",
            "sets": len(sets),
            "variants": sum(len(s.variants) for s in sets),
            "sets_digest": digest(sets),
            "kinds": report.counts,
        }
        if config.dry_run:
            for v in sets[0].variants:
                row = {"variant_id": v.variant_id, "prompt": v.prompt, "target": v.target}
                print(json.dumps(row, ensure_ascii=False))
            return summary
        if run.summary == summary:
            return summary
        run.open({"sets_digest": summary["sets_digest"]})
        write_sets(run.path / "sets.jsonl", sets)
        total = f"{counted(summary['variants'], 'prompt')} in {counted(len(sets), 'set')}"
        print(f"{total}: {run.path / 'sets.jsonl'}", file=sys.stderr)
        return run.finish(summary)


def surroundings(config: SensitivityConfig, tokenizer: Any) -> dict[str, str | None]:
    """Return digests of chat template with system message, and of the exemplars; None where a prompt has none."""
    more = [template_options(config)] if config.chat_template_kwargs else []
    template = _sha([tokenizer.chat_template, config.system, *more]) if config.chat else None
    shots = _content(config.shots_data) if config.shots_data and config.shots else ""
    return {
        "template_sha": template,
        "exemplars_sha": _sha([config.shots, shots, config.shots_layout]) if config.shots else None,
    }


def _content(source: str) -> str:
    """Return the text of a data file, or the digest of a source that is not a text file."""
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return str(source_digest(source))


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _check(config: SensitivityConfig) -> None:
    answers.rule(config.answers)
    if config.exact and config.backend != "hf":
        raise HoldfastError("--exact is for --backend hf: a server computes in its own way")


@dataclass(frozen=True)
class _Work:
    """What a back end did: the scores per set and of pairs of unrelated prompts, and the audit."""

    scored: list[Scores]
    unrelated: list[Scores]
    audit: dict[str, float]


def _score(
    tasks: Sequence[SetTask], unrelated: Sequence[SetTask], config: SensitivityConfig, backend: Backend, run: RunDir
) -> _Work:
    """Score the sets, then a few unrelated prompts. What is in the cache is not computed."""
    identity = {**backend.identity(), "max_new_tokens": str(config.max_new_tokens), "exact": str(config.exact)}
    store, scored = Store(Path(config.cache) if config.cache else run.path / "cache", identity), ScoreTable()
    try:
        for batch in _batches(tasks, SETS_PER_BATCH):
            store.fetch(batch, scored)
        missing = [t for t in tasks if not scored.responses.keys() >= set(t.prompts) or t.wanted(scored)]
        progress = Progress("set", len(missing), doing="scoring")
        for batch in _small(missing, backend.parallel):
            try:
                backend.complete(batch, scored)
            finally:  # so that answers of a server that then failed are kept
                store.put(batch, scored)
            progress.add(len(batch))
        progress.close()
        audit = backend.audit(tasks, scored, _audited(config, tasks), config.seed)
        apart = _unrelated(unrelated, scored, backend, store)
    finally:
        store.close()
    return _Work([scored.scores(task) for task in tasks], apart, audit)


def _unrelated(tasks: Sequence[SetTask], scored: ScoreTable, backend: Backend, store: Store) -> list[Scores]:
    """Return the scores of pairs of unrelated prompts; none where these fail: a run does not depend on them."""
    try:
        store.fetch(tasks, scored)
        missing = [task for task in tasks if task.wanted(scored)]
        if missing:
            backend.complete(missing, scored)
            store.put(missing, scored)
    except HoldfastError as error:
        print(f"unrelated prompts were not measured: {error.message}", file=sys.stderr)
        return []
    return [scored.scores(task) for task in tasks]


def _small(tasks: Sequence[SetTask], parallel: int) -> Iterator[list[SetTask]]:
    """Yield sets that are scored together: so few that a run says how far it is, and that a kill costs little."""
    batch: list[SetTask] = []
    for task in tasks:
        prompts = sum(len(one.prompts) for one in (*batch, task))
        if batch and (prompts > _PROMPTS_PER_BATCH * parallel or len(batch) == SETS_PER_BATCH * parallel):
            yield batch
            batch = []
        batch.append(task)
    if batch:
        yield batch


def _batches(tasks: Sequence[SetTask], size: int) -> Iterator[list[SetTask]]:
    for start in range(0, len(tasks), size):
        yield list(tasks[start : start + size])


def _audited(config: SensitivityConfig, tasks: Sequence[SetTask]) -> int:
    cells = sum(sum(len(group) ** 2 for group in task.groups) for task in tasks)
    return min(64, max(4, math.ceil(cells * config.audit_share))) if config.audit_share > 0 else 0


def _write(
    run: RunDir,
    plan: SensitivityPlan,
    config: SensitivityConfig,
    work: _Work,
    rows: list[dict[str, Any]],
    about: dict[str, Any],
) -> dict[str, Any]:
    (run.path / "matrices").mkdir(exist_ok=True)
    for number, (row, scores) in enumerate(zip(rows, work.scored, strict=True)):
        row["matrix"] = f"matrices/{number}.npz"
        np.savez_compressed(
            run.path / "matrices" / f"{number}.npz",
            logp_XY=scores.logp_XY,
            len_Y=scores.len_Y,
            token_logp=scores.token_logp.astype(np.float32),
        )
    write_text(run.rows, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_sets(run.path / "sets.jsonl", plan.sets)
    summary = {
        "command": "sensitivity run",
        "model": config.model,
        "backend": config.backend,
        "definition": config.definition,
        "max_new_tokens": config.max_new_tokens,
        "chat": config.chat,
        "shots": config.shots,
        "sets": len(plan.sets),
        "prompts": sum(len(s.variants) for s in plan.sets),
        **summarise(rows, config.seed, config.bootstrap),
        "targets": task_metrics(rows, plan.views),
        "answers": words.readable(rows, config.answers),
        "changed": words.changed_answers(rows),
        "worst": words.worst(rows),
        "scale": words.scale(rows, work.unrelated) | words.alike(rows),
        "skipped": vars(plan.skipped),
        "variants": plan.report.counts,
        **about,
    }
    write_harness_files(run.path, plan, rows, summary, config)
    summary = with_tables(summary | {"in_words": words.in_words(summary)})
    print(*summary["in_words"], words.page_of(config.output), "", lines(summary), sep="\n", file=sys.stderr)
    return run.finish(summary)


def _reading(config: SensitivityConfig, tokenizer: Any) -> AnswerReading:
    """How scores are read in this run."""
    released = config.max_new_tokens if config.definition == "package-0.0.1" else None
    return AnswerReading(answers.rule(config.answers), _token_text(tokenizer), released)


def _token_text(tokenizer: Any) -> Callable[[int], str]:
    return functools.cache(lambda token: str(tokenizer.convert_ids_to_tokens(token)))


def _start(plan: SensitivityPlan, config: SensitivityConfig, tokenizer: Any) -> list[str]:
    """Return what is said before a model is asked: which one, about what, and what that takes at most."""
    fast, _ = _expected_cost(plan, config.max_new_tokens, config.seed)
    at = f" at {config.endpoint}" if config.endpoint else ""
    template = f"{'with' if config.chat else 'without'} its chat template"
    if not config.chat and getattr(tokenizer, "chat_template", None):
        template += ", which --chat would use"
    return [
        f"model {config.model}{at}, back end {config.backend}; {template}",
        f"{counted(sum(map(len, plan.ids)), 'prompt')} in {counted(len(plan.sets), 'set')}, answers of at most "
        f"{counted(config.max_new_tokens, 'token')}; at most {counted(fast, 'token-forward')}",
    ]


def _preview(plan: SensitivityPlan, config: SensitivityConfig, tokenizer: Any) -> dict[str, Any]:
    """Print the first set as the model will read it, and the cost if every response has full length and is distinct."""
    fast, plain = _expected_cost(plan, config.max_new_tokens, config.seed)
    figures: dict[str, Any] = {
        "command": "sensitivity run",
        "sets": len(plan.sets),
        "prompts": sum(len(s.variants) for s in plan.sets),
        "views": {name: len(view) for name, view in plan.views[0].items()},
        "longest_prompt": max(max(map(len, ids)) for ids in plan.ids),
        "token_forwards_at_most": fast,
        "plain_token_forwards": plain,
        "skipped": vars(plan.skipped),
        "variants": plan.report.counts,
    }
    if not config.json:
        first = plan.sets[0]
        for v, text, ids in zip(first.variants, plan.texts[0], plan.ids[0], strict=True):
            tokens = counted(len(ids), "token")
            print(f"--- {first.set_id} / {v.variant_id} ({v.kind}), {tokens}, target {v.target!r}\n{text}")
        total = f"{counted(figures['prompts'], 'prompt')} in {counted(figures['sets'], 'set')}"
        print(f"\n{total}; at most {fast:,} token-forwards (plainly {plain:,})")
    return figures


def _expected_cost(plan: SensitivityPlan, r: int, seed: int) -> tuple[int, int]:
    """Return token-forwards of the fast and of the plain way, if every response is distinct and has r tokens."""
    fast = plain = 0
    for ids, views in zip(plan.ids, plan.views, strict=True):
        prompts, pairs = set(ids), set[tuple[Ids, Ids]]()
        for view in views.values():
            own = [ids[i] for i in view]
            pairs.update(itertools.product(own, own))
        fast += sum(len(p) + r - 1 for p in prompts) + len(pairs) * (r - 1)
        plain += sum(r * len(p) + r * (r - 1) // 2 for p in prompts) + sum(len(p) + r for p, _ in pairs)
    unrelated = words.unrelated_pairs([s.set_id for s in plan.sets], plan.ids, seed)
    both = list(itertools.chain.from_iterable(task.prompts for task in unrelated))
    fast += sum(map(len, set(both))) + len(both) * (r - 1)
    plain += sum(len(p) + r for p in both)
    return fast, plain
