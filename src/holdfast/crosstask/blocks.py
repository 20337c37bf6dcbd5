"""A block of the grid -> results, by whatever answers: label log-probs here, text here, text from a server. And results
<-> files.

A block file is the unit of resuming: it appears whole or not at all, and a run that goes on takes it as it is.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast import lm as models
from holdfast.crosstask import states
from holdfast.crosstask.generate import Endpoint, generate
from holdfast.crosstask.grid import ZERO, Cell, Grid, make_block
from holdfast.crosstask.scoring import Batch, CellScores, Reader
from holdfast.errors import HoldfastError, from_json
from holdfast.lm import plain
from holdfast.lm.engine import Cost, Engine, Request, Scored
from holdfast.lm.score import OnHidden

COUNTS = ("tokens", "padded", "calls", "plain_tokens")
"""What summaries say of the cost."""
CENTRE_SAMPLE = 64
"""Prompts from which the mean state is taken."""


@dataclass
class CellResult:
    """What one cell gave: ``scores`` of labels or generated ``texts``, and what its prompts looked like."""

    target: str
    condition: str
    scores: CellScores | None = None
    texts: list[str] | None = None
    demos: list[Any] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    shortened: list[int] = field(default_factory=list)
    similarity: dict[str, Any] | None = None
    """Sums of cosines per pair of positions and layer, and their count (``--states``)."""


@dataclass
class Block:
    """Results of a block, what it cost, and labels whose first tokens collide, by target."""

    results: list[CellResult]
    cost: Cost
    collisions: dict[str, str]


class Runner:
    """The part of a run that holds the model. One in this process, or one in each Ray actor."""

    def __init__(self, grid: Grid, lm: Any = None) -> None:
        config = grid.config
        self.grid, self.config, self._lm = grid, config, lm
        self.reader: Reader | None = None
        self.limit: int | None = config.context
        if not config.endpoint:
            tokenizer = (
                lm.tokenizer if lm else models.load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
            )
            self.reader = Reader(tokenizer, config.template)
            context = (
                lm.context
                if lm
                else models.context_length(
                    models.load_config(config.model, trust_remote_code=config.trust_remote_code), tokenizer
                )
            )
            if config.context and config.context > context:
                raise HoldfastError(f"--context {config.context}: the model takes {context} tokens")
            self.limit = config.context or context
        self._centre: Any = None
        self.answers: Path | None = None
        """Where a server's answers are kept until their block is whole."""
        self._endpoint: Endpoint | None = None
        self._cells: dict[str, list[Cell]] = {}

    @property
    def lm(self) -> Any:
        """The model, loaded when it is first needed."""
        if self._lm is None:
            self._lm = models.load(self.config.model, trust_remote_code=self.config.trust_remote_code)
        return self._lm

    def cells(self, block: str) -> list[Cell]:
        """The prompts of a block, each within the model's context."""
        if block not in self._cells:
            limit = self._prompt_limit()
            self._cells[block] = make_block(self.grid, block, self.reader.count if self.reader else _no_count, limit)
        return self._cells[block]

    def run(self, block: str) -> Block:
        """Score or generate one block."""
        return self.run_cells(self.cells(block))

    def run_cells(self, cells: Sequence[Cell]) -> Block:
        """Score or generate some cells, together."""
        scored = [cell for cell in cells if self._by_likelihood(cell)]
        results = {id(cell): CellResult(cell.target, cell.condition) for cell in cells}
        cost, collisions = Cost(), dict[str, str]()
        if scored:
            cost, collisions = self._score(scored, results)
        for cell in cells:
            if id(cell) not in {id(c) for c in scored}:
                results[id(cell)].texts = self._generate(cell)
            result = results[id(cell)]
            result.demos = [list(map(list, prompt.demos)) for prompt in cell.prompts]
            result.dropped, result.shortened = [p.dropped for p in cell.prompts], [p.shortened for p in cell.prompts]
        return Block([results[id(cell)] for cell in cells], cost, collisions)

    def batch(self, cells: Sequence[Cell], with_states: bool = False) -> Batch:
        """The requests of these cells."""
        assert self.reader is not None
        return Batch(self.reader, {name: target.task for name, target in self.grid.targets.items()}, cells, with_states)

    def _score(self, cells: Sequence[Cell], results: dict[int, CellResult]) -> tuple[Cost, dict[str, str]]:
        batch = self.batch(cells, self.config.states)
        sums = self._similarities(cells) if self.config.states else None
        cost = Cost()
        answers = self._answers(batch.requests, sums.add if sums else None, cost)
        for place, (cell, scores) in enumerate(zip(cells, batch.scores(answers), strict=True)):
            results[id(cell)].scores = scores
            if sums is not None and sums.count[place]:
                results[id(cell)].similarity = {
                    "count": int(sums.count[place]),
                    "centred": dict(zip(states.PAIRS, sums.centred[place].tolist())),
                    "raw": dict(zip(states.PAIRS, sums.raw[place].tolist())),
                }
        return cost, batch.collisions

    def _answers(
        self, requests: Sequence[Request], on_hidden: OnHidden | None = None, cost: Cost | None = None
    ) -> list[Scored]:
        """Score requests, by the engine or plainly, and add what that costs."""
        cost = Cost() if cost is None else cost
        if self.config.exact:
            return plain.score(self.lm.model, requests, on_hidden=on_hidden, cost=cost)
        engine = Engine(self.lm.model, self.lm.context, token_budget=self.config.token_budget)
        engine.cost = cost
        return engine.score(requests, on_hidden=on_hidden)

    def _similarities(self, cells: Sequence[Cell]) -> states.Similarities:
        owners = [
            place if i < self.grid.targets[cell.target].test else -1
            for place, cell in enumerate(cells)
            for i in range(len(cell.prompts) + len(cell.empty))
        ]
        return states.Similarities(owners, len(cells), self._mean_state())

    def _mean_state(self) -> npt.NDArray[np.float64]:
        """From a few prompts of every source, the same ones in every process."""
        if self._centre is None:
            blocks = list(self.grid.sources)
            each = max(1, CENTRE_SAMPLE // len(blocks))
            requests = []
            for block in blocks:
                cells = [cell for cell in self.cells(block) if self._by_likelihood(cell)]
                sample = [request for request in self.batch(cells, True).requests if request.hidden_at]
                requests += sample[:: max(1, len(sample) // each)][:each]
            if not requests:
                raise HoldfastError(
                    "--states: no prompt has a source definition, a demonstration and a target with labels to compare",
                    hint="use --k 1 or more",
                )
            self._centre = states.mean_state(self._answers, requests)
        return np.asarray(self._centre)

    def _by_likelihood(self, cell: Cell) -> bool:
        return self.config.decode == "likelihood" and self.grid.targets[cell.target].task.labels is not None

    def _generate(self, cell: Cell) -> list[str]:
        config = self.config
        if config.endpoint:
            self._endpoint = self._endpoint or Endpoint(
                config.endpoint, config.model, config.max_new_tokens, file=self.answers
            )
            return self._endpoint.generate([prompt.text for prompt in cell.prompts])
        assert self.reader is not None
        return generate(
            self.lm,
            [self.reader.written(p.text) for p in cell.prompts],
            max_new_tokens=config.max_new_tokens,
            rule=config.rule,
        )

    def _prompt_limit(self) -> int | None:
        """Tokens that a prompt may have: what the model takes, less the longest answer."""
        if self.reader is None or self.limit is None:
            return None
        longest = 0
        for target in self.grid.targets.values():
            answers = self.reader.answers(target.task)
            if self.config.decode == "generate" or not answers:
                longest = max(longest, self.config.max_new_tokens)
            else:
                longest = max(longest, *(len(ids) for ids in self.reader.ids(list(answers))))
        return self.limit - longest


def _no_count(texts: Sequence[str]) -> list[int]:
    return [0] * len(texts)


def pack(block: Block) -> bytes:
    """A block as the bytes of an npz file, with what is no array in one JSON text."""
    arrays: dict[str, Any] = {}
    plain = []
    for number, result in enumerate(block.results):
        entry = {
            key: getattr(result, key)
            for key in ("target", "condition", "texts", "demos", "dropped", "shortened", "similarity")
        }
        plain.append(entry | {"scored": result.scores is not None})
        if result.scores is not None:
            arrays |= {f"{number}_{key}": value for key, value in vars(result.scores).items()}
    note = json.dumps(
        {"results": plain, "cost": asdict(block.cost), "collisions": block.collisions}, ensure_ascii=False
    )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, note=np.frombuffer(note.encode(), np.uint8), **arrays)
    return buffer.getvalue()


def unpack(data: bytes) -> Block:
    """The inverse of ``pack``."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        note = from_json(bytes(file["note"]).decode())
        results = []
        for number, entry in enumerate(note["results"]):
            scored = entry.pop("scored")
            scores = (
                CellScores(**{key: file[f"{number}_{key}"] for key in CellScores.__dataclass_fields__})
                if scored
                else None
            )
            results.append(CellResult(scores=scores, **entry))
    return Block(results, Cost(**note["cost"]), note["collisions"])


def read(path: Path) -> Block:
    """A block file; a ``HoldfastError`` if it is damaged."""
    try:
        return unpack(path.read_bytes())
    except Exception as error:  # of zipfile, zlib, numpy and json, of a note that lacks something
        raise HoldfastError(
            f"{path}: cannot be read ({type(error).__name__}: {error})",
            hint="remove this file; the same command makes it again",
        ) from error


def write(path: Path, data: bytes) -> None:
    """Write a block file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def block_file(run: Path, grid: Grid, block: str) -> Path:
    """Where the results of a block lie in a run directory."""
    return run / "blocks" / f"{grid.blocks.index(block):03d}.npz"


def answers_file(run: Path) -> Path:
    """Where the answers of a server are kept as they come."""
    return run / "blocks" / "answers.jsonl"


def block_title(block: str) -> str:
    """How a block is called in the log."""
    return "baselines" if block == ZERO else block
