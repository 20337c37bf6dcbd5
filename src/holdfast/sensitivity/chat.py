"""``holdfast sensitivity run --backend chat``, top to bottom: config -> questions -> answers -> rows -> run directory.

Needs no log-probs, so everything that needs answers only is measured, with its noise (``noise``), and psi is not. The
run directory is that of the other back ends, without matrices; OUTPUT/cache/answers.sqlite has every answer.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from holdfast import runs
from holdfast.chat import Chat, ChatAnswer, without_thoughts
from holdfast.config import SensitivityConfig
from holdfast.errors import HoldfastError
from holdfast.runs import Run, RunDir, write_text
from holdfast.sensitivity import answers, equality, index, noise, words
from holdfast.sensitivity.asking import Asker, ChatQuestion, CostEstimate, Prices, Spending, estimate
from holdfast.sensitivity.export import write_harness_files
from holdfast.sensitivity.measurement import task_metrics
from holdfast.sensitivity.planning import SensitivityPlan, Views, gather, template_options, views_of
from holdfast.sensitivity.prompts import Renderer
from holdfast.sensitivity.sets import PromptSet, usable, write_sets
from holdfast.sensitivity.store import AnswerStore
from holdfast.sensitivity.variants import wording
from holdfast.stats import bootstrap_mean
from holdfast.tables import lines, with_tables
from holdfast.tables.sensitivity import flips
from holdfast.tables.text import counted

PSI_REASON = "psi needs the log-prob of every answer after every prompt, which a chat endpoint does not give"
_UNUSED = ("exact", "definition", "tokenizer", "context", "cluster", "dtype", "token_budget")
"""Options that a chat endpoint has no use for."""
_CHAT_ONLY = (
    "api", "repeats", "temperature", "equality", "same_meaning", "judge_url", "judge_model", "reasoning_effort",
    "price_in", "price_out", "budget", "max_requests",
)  # fmt: skip
"""Options that no other back end has a use for."""
_MEASURES = ("unique_responses", "response_entropy", "variation_ratio", "consistency_rate", "answered")
_JUDGE_TOKENS = 512


@dataclass(frozen=True)
class Questions:
    """The messages of every wording, per set, and how often each is asked."""

    plan: SensitivityPlan
    messages: list[list[tuple[dict[str, Any], ...]]]
    repeats: int

    def __iter__(self) -> Iterator[ChatQuestion]:
        """All questions, the first repeat of everything first: a budget that ends early leaves whole prompts."""
        for repeat in range(self.repeats):
            for messages in itertools.chain.from_iterable(self.messages):
                yield ChatQuestion(messages, repeat)


def measure_answers(config: SensitivityConfig) -> dict[str, Any]:
    """Measure how far the answers of a chat endpoint change with the wording, and write a run directory.

    Returns:
        The summary. ``answer_changes``: by view, how often answers to two wordings differ, how often those to one
        wording do, and the effect of the wording that is left; ``indices`` and ``targets`` as for the other back ends;
        ``psi``: null, with ``psi_reason``.

    Raises:
        HoldfastError: bad input; a server that refuses; or the budget is spent: answers so far are stored.
    """
    _check(config)
    with runs.command(config, "sensitivity run") as run:
        questions = _questions(config)
        chat = _chat(config)
        if config.dry_run:
            return _preview(questions, config, chat)
        resolved = _resolved(questions, config, chat)
        if summary := run.finished(resolved=resolved):
            return summary
        is_new = not run.path.exists()
        run.open(resolved)
        started = time.perf_counter()
        with _store(config, run) as store:
            spending = _spending(config)
            asker = Asker(chat, store, spending, config.concurrency)
            plan = asker.estimate(questions)
            print(plan.sentence(), file=sys.stderr)
            with _leaving_nothing(run, lambda: is_new and not spending.requests and not plan.stored):
                said = _by_wording(asker.answers(list(questions)), questions)
            unread: list[str] = []
            labels = _equality(config, store, spending, unread)
            rows = [
                _row(*one, labels, config)
                for one in zip(questions.plan.sets, questions.messages, said, questions.plan.views, strict=True)
            ]
            about = _about(said, asker, questions, unread, config)
        return _write(run, questions.plan, config, rows, {
            **about,
            "resolved": resolved,
            "cost": _cost(spending, chat, plan),
            "price": round(spending.spent, 6) if spending.prices.is_whole() else None,
            "audit": {},
            "seconds": round(time.perf_counter() - started, 2),
            "way": f"chat ({chat.api})",
        })  # fmt: skip


def check_unused(config: SensitivityConfig) -> None:
    """Refuse options of chat endpoints for another back end.

    Raises:
        HoldfastError: names the first.
    """
    _refuse(config, _CHAT_ONLY, "is for --backend chat")


def _check(config: SensitivityConfig) -> None:
    answers.rule(config.answers)
    _refuse(config, _UNUSED, "does not go with --backend chat, which only reads answers")
    if config.endpoint is None:
        raise HoldfastError("--backend chat needs --endpoint", hint="such as https://api.openai.com/v1")
    if (config.budget is not None) and (config.price_in is None or config.price_out is None):
        raise HoldfastError("--budget needs --price-in and --price-out, per million tokens")
    if config.equality == "judge" and not (config.judge_url and config.judge_model):
        raise HoldfastError("--equality judge needs --judge-url and --judge-model")
    if config.equality != "judge" and (config.judge_url or config.judge_model):
        raise HoldfastError("--judge-url and --judge-model are for --equality judge")
    if config.equality == "meaning" and not config.meaning_model:
        raise HoldfastError("--equality meaning needs --meaning-model", hint="a sentence-transformers model")


def _refuse(config: SensitivityConfig, names: Sequence[str], why: str) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in names:
        if getattr(config, name) != defaults[name]:
            raise HoldfastError(f"--{name.replace('_', '-')} {why}")


def _questions(config: SensitivityConfig) -> Questions:
    sets, report = gather(config)
    sets, skipped = usable(sets, config.strict)
    renderer = Renderer(
        None,
        chat_template=True,
        system=config.system,
        shots=config.shots,
        shots_data=config.shots_data,
        layout=config.shots_layout,
    )
    messages: list[list[tuple[dict[str, Any], ...]]] = []
    texts: list[list[str]] = []
    for s in sets:
        turns = [renderer.messages(v) for v in s.variants]
        messages.append([tuple({"role": m.role.label, "content": m.content} for m in own) for own in turns])
        texts.append([json.dumps(list(own), ensure_ascii=False) for own in messages[-1]])
    plan = SensitivityPlan(sets, views_of(sets, config), texts, [], skipped, report)
    return Questions(plan, messages, config.repeats)


def _chat(config: SensitivityConfig) -> Chat:
    options = template_options(config)
    return Chat(
        str(config.endpoint),
        config.model,
        max_tokens=config.max_new_tokens,
        api=config.api,
        temperature=config.temperature,
        logprobs=True,
        extra={"chat_template_kwargs": options} if options else None,
        effort=config.reasoning_effort,
        timeout=config.timeout,
        retries=config.retries,
    )


def _spending(config: SensitivityConfig) -> Spending:
    return Spending(Prices(config.price_in, config.price_out), config.budget, config.max_requests)


@contextmanager
def _store(config: SensitivityConfig, run: RunDir) -> Iterator[AnswerStore]:
    store = AnswerStore(Path(config.cache) if config.cache else run.path / "cache")
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _leaving_nothing(run: Run, is_nothing: Callable[[], bool]) -> Iterator[None]:
    """Remove the directory of a run that fails before its first answer: in a mended command's way it would only be
    another run.
    """
    try:
        yield
    except HoldfastError:
        if is_nothing():
            run.withdraw()
        raise


def _equality(
    config: SensitivityConfig, store: AnswerStore, spending: Spending, unread: list[str]
) -> equality.Equality:
    if config.equality == "exact":
        return equality.exact
    if config.equality == "answer":
        return equality.as_read(answers.rule(config.answers))
    if config.equality == "meaning":
        return equality.by_meaning(wording.sentence_similarity(str(config.meaning_model)), config.same_meaning)
    judge = Chat(
        str(config.judge_url),
        str(config.judge_model),
        max_tokens=_JUDGE_TOKENS,
        timeout=config.timeout,
        retries=config.retries,
    )
    return equality.by_judge(Asker(judge, store, spending, config.concurrency).ask, unread)


def _by_wording(said: Sequence[ChatAnswer], questions: Questions) -> list[list[list[ChatAnswer]]]:
    """Return the answers by set, wording and repeat, [Q][V][K]."""
    count = sum(map(len, questions.messages))
    by_wording = iter([list(said[i::count]) for i in range(count)])
    return [list(itertools.islice(by_wording, len(messages))) for messages in questions.messages]


def _row(
    s: PromptSet,
    messages: Sequence[tuple[dict[str, Any], ...]],
    said_VK: Sequence[Sequence[ChatAnswer]],
    views: Views,
    labels: equality.Equality,
    config: SensitivityConfig,
) -> dict[str, Any]:
    texts_VK = [
        [without_thoughts(answer.text, v.prompt)[0].strip() for answer in said]
        for v, said in zip(s.variants, said_VK, strict=True)
    ]
    labels_VK, rule = labels(s, texts_VK), answers.rule(config.answers)
    row: dict[str, Any] = {"set_id": s.set_id, "prompts": len(s.variants), "indices": {}, "answers": {}}
    for name, view in views.items():
        row["indices"][name] = _indices(s, [labels_VK[i] for i in view], [texts_VK[i] for i in view], view, rule)
        row["answers"][name] = noise.changes([labels_VK[i] for i in _distinct(messages, view)])
        row["answers"][name]["first_token"] = _first_token([said_VK[i][0] for i in _distinct(messages, view)])
        row["indices"][name]["distinct_prompts"] = len(_distinct(messages, view))
    row["variants"] = [
        _variant(v, said, texts, rule) | {"usual": _usual(own)}
        for v, said, texts, own in zip(s.variants, said_VK, texts_VK, labels_VK, strict=True)
    ]
    return row | {"attribution": {}}


def _distinct(messages: Sequence[tuple[dict[str, Any], ...]], view: Sequence[int]) -> list[int]:
    """Return the places of a view without those that ask the same as an earlier one, whose answers are its own."""
    first: dict[str, int] = {}
    for i in view:
        first.setdefault(repr(messages[i]), i)
    return list(first.values())


def _indices(
    s: PromptSet,
    labels_VK: Sequence[Sequence[Hashable]],
    texts_VK: Sequence[Sequence[str]],
    view: Sequence[int],
    rule: answers.Rule,
) -> dict[str, Any]:
    first = [labels[0] for labels in labels_VK]
    read = [rule(texts[0], s.variants[i]) is not None for texts, i in zip(texts_VK, view, strict=True)]
    return {
        "psi": None,
        "unique_responses": index.unique_responses(first),
        "response_entropy": index.response_entropy(first),
        "variation_ratio": index.variation_ratio(first),
        "consistency_rate": index.consistency_rate(first),
        "answered": sum(read) / len(read),
        "prompts": len(view),
    }


def _first_token(said: Sequence[ChatAnswer]) -> dict[str, float] | None:
    """Return the mean shift (nats) of the first token of an answer from its own wording to another, over all pairs.

    Servers list only the most likely tokens: one that is not listed lies below the last that is, which bounds its shift
    from below. ``at_least``: the share of pairs that are such bounds. None where a server gives no log-probs.
    """
    if any(answer.token is None or not answer.first for answer in said):
        return None
    shifts: list[float] = []
    bounds = 0
    for own, other in itertools.permutations(said, 2):
        token = str(own.token)
        bounds += token not in other.first
        foreign = other.first.get(token, min(other.first.values()))
        shifts.append(abs(own.first[token] - foreign))
    return {"shift": fmean(shifts), "at_least": bounds / len(shifts)}


def _variant(v: Any, said: Sequence[ChatAnswer], texts: Sequence[str], rule: answers.Rule) -> dict[str, Any]:
    read = [rule(text, v) for text in texts]
    about: dict[str, Any] = {"variant_id": v.variant_id, "kind": v.kind, "response": texts[0]}
    about |= {"tokens": said[0].tokens_out, "cut": said[0].is_cut}
    about |= {"repeats": list(texts)} if len(texts) > 1 else {}
    about |= {"answer": read[0]}
    if v.target is None:
        return about
    right = [answer == answers.gold(v) for answer in read]
    shares = {"right_share": sum(right) / len(right)} if len(right) > 1 else {}
    return about | {"gold": answers.gold(v), "right": right[0]} | shares


def _usual(labels: Sequence[Hashable]) -> str | None:
    """Return the most frequent answer to a wording, the first of those that are; None where it cannot be read."""
    label = max(labels, key=labels.count)
    return label if isinstance(label, str) else None


def _in_words(rows: Sequence[dict[str, Any]], changes: dict[str, Any], config: SensitivityConfig) -> dict[str, Any]:
    """Return the figures of the sentences that end a run; an answer to a wording is its most frequent one."""
    usual: list[dict[str, Any]] = []
    for row in rows:
        usual.append(row | {"variants": [v | {"answer": v["usual"]} for v in row["variants"]]})
    are_comparable = config.equality in ("answer", "exact")
    return {
        "answers": words.readable(rows, config.answers),
        "changed": words.changed_answers(usual),
        "worst": words.worst(usual, flips, "differ"),
        "scale": words.answer_scale(changes, usual, are_comparable)
        | words.alike(usual if are_comparable else rows[:1]),
    }


def _summarise(rows: Sequence[dict[str, Any]], config: SensitivityConfig) -> dict[str, Any]:
    views = dict.fromkeys(itertools.chain.from_iterable(row["indices"] for row in rows))
    indices: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    for view in views:
        measured = [row for row in rows if view in row["indices"]]
        indices[view] = {
            name: _estimate([row["indices"][view][name] for row in measured], config) for name in _MEASURES
        }
        changes[view] = noise.over_prompts([row["answers"][view] for row in measured], config.seed, config.bootstrap)
        first = [row["answers"][view]["first_token"] for row in measured if row["answers"][view]["first_token"]]
        changes[view]["first_token"] = _estimate([one["shift"] for one in first], config) if first else None
        changes[view]["first_token_at_least"] = round(fmean(one["at_least"] for one in first), 6) if first else None
    return {"posix": {}, "psi": None, "psi_reason": PSI_REASON, "indices": indices, "answer_changes": changes}


def _estimate(values: Sequence[float], config: SensitivityConfig) -> dict[str, float]:
    estimate = bootstrap_mean(values, config.seed, config.bootstrap)
    return {key: round(value, 6) for key, value in estimate.items()}


def _graded(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with the share of right repeats in the place of the first repeat's being right."""
    graded: list[dict[str, Any]] = []
    for row in rows:
        variants = [v | {"right": v.get("right_share", v["right"])} if "right" in v else v for v in row["variants"]]
        graded.append(row | {"variants": variants})
    return graded


def _about(
    said: Any, asker: Asker, questions: Questions, unread: Sequence[str], config: SensitivityConfig
) -> dict[str, Any]:
    """Return what is to be known of the answers, and say on stderr what makes them worth less."""
    every = list(itertools.chain.from_iterable(itertools.chain.from_iterable(said)))
    cut, empty = sum(answer.is_cut for answer in every), sum(not answer.text.strip() for answer in every)
    sent = asker.sent(next(iter(questions)))
    if cut:
        print(
            f"note: {cut:,} of {counted(len(every), 'answer')} were cut off at --max-new-tokens; "
            "thoughts count among them",
            file=sys.stderr,
        )
    if empty:
        print(f"note: {empty:,} of {counted(len(every), 'answer')} are empty", file=sys.stderr)
    if unread:
        print(f"note: {len(unread):,} verdicts of the judge are neither yes nor no, and count as no", file=sys.stderr)
    if questions.repeats == 1:
        sampled = "" if sent.get("temperature") == 0 else ", and these answers are sampled"
        print(f"note: one repeat does not tell noise from effect{sampled}: --repeats 3", file=sys.stderr)
    return {
        "repeats": questions.repeats,
        "equality": config.equality,
        "request": sent,
        "answered": {"answers": len(every), "cut": cut, "empty": empty, "verdicts_not_read": len(unread)},
    }


def _resolved(questions: Questions, config: SensitivityConfig, chat: Chat) -> dict[str, Any]:
    """Return what the answers are of, as far as it can be known of an endpoint."""
    exemplars = _sha([config.shots, config.shots_data, config.shots_layout]) if config.shots else None
    return {
        "sets_digest": questions.plan.digest,
        "template_sha": _sha([config.system, template_options(config)]),
        "exemplars_sha": exemplars,
        "weights": f"chat {chat.identity()['address']} {config.model}",
        "dtype": "served",
    }


def _cost(spending: Spending, chat: Chat, plan: CostEstimate) -> dict[str, int]:
    return {
        "requests": chat.client.requests,
        "retries": chat.client.retried,
        "answers": spending.requests,
        "answers_stored_before": plan.stored,
        "tokens_in": spending.tokens_in,
        "tokens_out": spending.tokens_out,
    }


def _write(
    run: RunDir, plan: SensitivityPlan, config: SensitivityConfig, rows: list[dict[str, Any]], about: dict[str, Any]
) -> dict[str, Any]:
    write_text(run.rows, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_sets(run.path / "sets.jsonl", plan.sets)
    measured = _summarise(rows, config)
    summary = {
        "command": "sensitivity run",
        "model": config.model,
        "backend": config.backend,
        "definition": config.definition,
        "max_new_tokens": config.max_new_tokens,
        "chat": True,
        "shots": config.shots,
        "sets": len(plan.sets),
        "prompts": sum(len(s.variants) for s in plan.sets),
        **measured,
        "targets": task_metrics(_graded(rows), plan.views),
        **_in_words(rows, measured["answer_changes"], config),
        "skipped": vars(plan.skipped),
        "variants": plan.report.counts,
        **about,
    }
    write_harness_files(run.path, plan, rows, summary, config)
    summary = with_tables(summary | {"in_words": words.in_words(summary)})
    print(*summary["in_words"], words.page_of(config.output), "", lines(summary), sep="\n", file=sys.stderr)
    print(f"psi is not available: {PSI_REASON}", file=sys.stderr)
    return run.finish(summary)


def _preview(questions: Questions, config: SensitivityConfig, chat: Chat) -> dict[str, Any]:
    """Print the first set as the endpoint will be sent it, and what asking everything takes, the store left aside."""
    plan = questions.plan
    asked = {repr(question): question for question in questions}.values()
    takes = estimate(list(asked), 0, chat.max_tokens, Prices(config.price_in, config.price_out))
    figures: dict[str, Any] = {
        "command": "sensitivity run",
        "sets": len(plan.sets),
        "prompts": sum(len(s.variants) for s in plan.sets),
        "views": {name: len(view) for name, view in plan.views[0].items()},
        "skipped": vars(plan.skipped),
        "variants": plan.report.counts,
        "requests_at_most": takes.requests,
        "tokens_in_about": takes.tokens_in,
        "tokens_out_at_most": takes.tokens_out,
        "price_at_most_about": takes.price,
    }
    if not config.json:
        first = plan.sets[0]
        for v, text in zip(first.variants, plan.texts[0], strict=True):
            print(f"--- {first.set_id} / {v.variant_id} ({v.kind}), target {v.target!r}\n{text}")
        total = f"{counted(figures['prompts'], 'prompt')} in {counted(figures['sets'], 'set')}"
        print(f"\n{total}, asked {counted(config.repeats, 'time')}; {takes.sentence()}")
    return figures


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
