"""The audit of a training that another trainer runs, on the batches that it is about to train on.

    trainer = SFTTrainer(..., callbacks=[holdfast.AuditCallback(refuse=True)])

The first batches are made before the first step, from the trainer's own data set, order and collator. What draws
numbers at random is put back afterwards, so that the training is the same to the last bit as without the callback.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from holdfast.audit import findings
from holdfast.audit.prepared import batch_rows, material_of, read_prepared
from holdfast.audit.record import Audit, AuditContext, AuditRow
from holdfast.audit.summary import summary_of, told
from holdfast.audit.tuned import rows_of
from holdfast.config import AuditConfig
from holdfast.data.conversation import stop_texts
from holdfast.data.examples import examples_of, load_examples
from holdfast.errors import HoldfastError
from holdfast.tune.roles import tokenize
from holdfast.tune.weights import role_weights

_HINT = "holdfast audit --prepared audits a saved data set; without refuse=True the training starts all the same"


class AuditCallback(TrainerCallback):
    """Audits the first batches of any ``transformers.Trainer`` when it begins to train, and prints the audit on stderr.

    Args:
        tokenizer: that of the training; None takes the trainer's.
        refuse: whether not to train where there is a finding.
        batches: how many batches of the training order are looked at.
        data: the rows that were prepared, as a file that Holdfast reads or as rows; None audits ids alone. With them
            the chat template of ``tokenizer`` must be that of the preparation.

    >>> import holdfast
    >>> holdfast.AuditCallback(refuse=True, batches=4).batches
    4
    """

    def __init__(self, tokenizer: Any = None, refuse: bool = False, batches: int = 2, data: Any = None) -> None:
        if batches < 1:
            raise HoldfastError(f"batches={batches}: there must be one to look at")
        self.tokenizer = tokenizer
        self.refuse = refuse
        self.batches = batches
        self.data = data
        self.audit: Audit | None = None
        """The audit, once the training has begun; None where the batches could not be looked at."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Audit the first batches.

        Raises:
            HoldfastError: there are findings, or the batches cannot be looked at, and ``refuse`` is set.
        """
        tokenizer = self.tokenizer or kwargs.get("processing_class")
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor has one
        try:
            if tokenizer is None:
                raise HoldfastError("the trainer has no tokenizer", hint="AuditCallback(tokenizer=...)")
            with same_randomness(kwargs["train_dataloader"]):
                self.audit = self._audit(tokenizer, kwargs.get("model"), kwargs["train_dataloader"], state)
        except HoldfastError as error:
            if self.refuse:
                raise
            print(f"the first batches are not audited: {error}", file=sys.stderr)
            return
        if self.refuse and self.audit.findings:
            kinds = ", ".join(finding.kind.value for finding in self.audit.findings)
            raise HoldfastError(f"the first {self.batches} batches have findings: {kinds}", hint=_HINT)

    def _audit(self, tokenizer: Any, model: Any, loader: Any, state: Any) -> Audit:
        context = context_of_model(tokenizer, model)
        references = None if self.data is None else references_of(self.data, tokenizer)
        rows = itertools.chain.from_iterable(
            batch_rows(batch, f"batch {number}") for number, batch in enumerate(first_batches(loader, self.batches), 1)
        )
        material = material_of(read_prepared(rows, context), context, references, "data")
        audit = findings.audit(material.rows, material.context, material.checks, material.unseen)
        if state.is_world_process_zero:
            config = AuditConfig(model=audit.model, prepared=f"the first {self.batches} batches")
            lines = told(summary_of(config, audit, material), colour=sys.stderr.isatty())
            print("\n".join(lines), file=sys.stderr)
        return audit


def context_of_model(tokenizer: Any, model: Any) -> AuditContext:
    """Return what rows are judged by: the tokenizer, and what the model's generation stops on where it says so."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    stops = {ends} if isinstance(ends, int) else {*(ends or ())}
    stops |= {*tokenizer.convert_tokens_to_ids(list(stop_texts(tokenizer)))}
    embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    return AuditContext(
        tokenizer=tokenizer,
        model=str(getattr(tokenizer, "name_or_path", "") or "the model"),
        stop_ids=frozenset(stops),
        bos_id=tokenizer.bos_token_id,
        eos_id=tokenizer.eos_token_id,
        embedding_rows=getattr(embedding, "num_embeddings", None),
    )


def references_of(data: Any, tokenizer: Any) -> tuple[AuditRow, ...]:
    """Return rows with roles, as Holdfast reads them: of a file, or of rows such as those of a data set."""
    if isinstance(data, str):
        examples = load_examples(data)
    else:
        rows = [(dict(row), f"data, row {number}") for number, row in enumerate(data, 1)]
        examples = examples_of(rows, "data")
    weights = role_weights()
    tokens, report = tokenize(examples, tokenizer, weights, max_length=2**31)
    return tuple(rows_of(report.places, tokens, weights))


def first_batches(loader: Any, count: int) -> Iterator[Mapping[str, Any]]:
    """Yield the first batches that a loader will give, without iterating over it.

    Raises:
        HoldfastError: it has no order of its own, as with data that streams and can be read but once, or its batches
            have no labels.
    """
    dataset, collate = loader.dataset, loader.collate_fn
    order = getattr(loader, "batch_sampler", None)
    if isinstance(dataset, torch.utils.data.IterableDataset) or order is None:
        raise HoldfastError("the data streams, and looking at it would take rows from the training")
    torch.empty((), dtype=torch.int64).random_(generator=getattr(loader, "generator", None))  # as loaders do before
    for places in itertools.islice(iter(order), count):
        several = getattr(dataset, "__getitems__", None)
        batch = collate(several(places) if several else [dataset[place] for place in places])
        if "input_ids" not in batch or "labels" not in batch:
            raise HoldfastError(f"the batches have no input_ids and labels, but {', '.join(map(str, batch))}")
        yield batch


@contextlib.contextmanager
def same_randomness(loader: Any) -> Iterator[None]:
    """Put all that draws numbers at random back to where it was, also what a loader and its samplers draw from."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    generators = [(generator, generator.get_state()) for generator in _generators(loader)]
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])
        if devices:
            torch.cuda.set_rng_state_all(devices)
        for generator, before in generators:
            generator.set_state(before)


def _generators(loader: Any) -> Iterator[torch.Generator]:
    """The generators of a loader, of its samplers and of those that they wrap."""
    waiting = [loader]
    while waiting:
        part = waiting.pop()
        for name in ("generator", "synchronized_generator"):
            if isinstance(getattr(part, name, None), torch.Generator):
                yield getattr(part, name)
        waiting += [
            getattr(part, name) for name in ("batch_sampler", "sampler") if getattr(part, name, None) is not None
        ]
