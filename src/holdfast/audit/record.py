"""The records of the audit: rows as a trainer would see them, what can be wrong with them, and what was."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.records import PROMPT_ROLES, RESPONSE_ROLES, Ids, Role


@dataclass(frozen=True)
class AuditRow:
    """One row as a trainer sees it: T ids, and for each of them the weight of its loss where it is the target.

    ``weights`` has T entries; the first is 0, because nothing predicts the first token. ``roles`` has T entries, or is
    None where only ids are there. ``positions`` are the position ids of a packed row, which begin anew with each
    document; None where the row is one document. ``place`` is what to name, such as ``data.jsonl, row 3``.

    Raises:
        HoldfastError: the parts are not of one length; the place is named.
    """

    place: str
    ids: Ids
    weights: tuple[float, ...]
    roles: tuple[Role, ...] | None = None
    positions: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("weights", "roles", "positions"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.ids):
                raise HoldfastError(f"{self.place}: {len(self.ids)} ids, but {len(values)} {name}")
        if self.weights and self.weights[0]:
            object.__setattr__(self, "weights", (0.0, *self.weights[1:]))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def runs(self) -> tuple[tuple[Role, int, int], ...]:
        """Stretches of tokens of one role, in order, as (role, begin, end); none for a row without roles."""
        runs: list[tuple[Role, int, int]] = []
        for role, tokens in itertools.groupby(self.roles or ()):
            begin = runs[-1][2] if runs else 0
            runs.append((role, begin, begin + len(list(tokens))))
        return tuple(runs)

    @cached_property
    def responses(self) -> tuple[tuple[int, int], ...]:
        """Begin and end of every response: what the model writes without a break, up to the end of a stop run."""
        parts: list[tuple[int, int]] = []
        is_open = False
        for role, begin, end in self.runs:
            if role in RESPONSE_ROLES:
                if is_open:
                    begin = parts.pop()[0]
                parts.append((begin, end))
            is_open = role in RESPONSE_ROLES and role is not Role.EOS
        return tuple(parts)


class Kind(StrEnum):
    """What can be wrong. A value is the name of the kind in JSON and in the docs."""

    # the model has to write it, and it is not paid
    ANSWER_UNPAID = "answer-unpaid"
    THOUGHT_UNPAID = "thought-unpaid"
    CALL_UNPAID = "call-unpaid"
    FORMAT_UNPAID = "format-unpaid"
    EMPTY_THOUGHT_UNPAID = "empty-thought-unpaid"
    STOP_UNPAID = "stop-unpaid"
    STOP_NEVER_PAID = "stop-never-paid"
    # the model is given it, and it is paid
    PROMPT_PAID = "prompt-paid"
    TEMPLATE_PAID = "template-paid"
    TOOL_RESULT_PAID = "tool-result-paid"
    GIVEN_THOUGHT_PAID = "given-thought-paid"
    # how rows begin and end
    STOP_MISSING = "stop-missing"
    CUT_BEFORE_STOP = "cut-before-stop"
    SECOND_BOS = "second-bos"
    SECOND_EOS = "second-eos"
    EMPTY_RESPONSE = "empty-response"
    # what rows hold
    DATE_IN_TEMPLATE = "date-in-template"
    BEYOND_EMBEDDING = "beyond-embedding"
    DUPLICATE_ROWS = "duplicate-rows"
    CONTRADICTING_ROWS = "contradicting-rows"
    KEYS_NOT_USED = "keys-not-used"
    ROWS_REFUSED = "rows-refused"
    # what only data can have that another trainer has prepared
    NOTHING_PAID = "nothing-paid"
    EVERYTHING_PAID = "everything-paid"
    LAST_TURN_ONLY = "last-turn-only"
    LABELS_SHIFTED = "labels-shifted"
    DOCUMENTS_JOINED = "documents-joined"
    OTHER_TOKENIZER = "other-tokenizer"

    @property
    def sentence(self) -> str:
        """What is wrong, as a sentence without its full stop."""
        return _SAID[self][0]

    @property
    def cure(self) -> str:
        """What to do about it."""
        return _SAID[self][1]


_UNPAID = "give the role its weight again, or leave rows out that should not teach it"
_MASK = (
    "train on what follows the generation prompt alone: in TRL completion_only_loss (prompt and completion) or "
    "assistant_only_loss (messages), in axolotl train_on_inputs: false, elsewhere labels of -100 on the rest"
)

_SAID: dict[Kind, tuple[str, str]] = {
    Kind.ANSWER_UNPAID: ("the model has to write text that no loss looks at", _UNPAID),
    Kind.THOUGHT_UNPAID: ("the model has to write thoughts that no loss looks at", _UNPAID),
    Kind.CALL_UNPAID: ("the model has to write tool calls that no loss looks at", _UNPAID),
    Kind.FORMAT_UNPAID: (
        "the model has to write markup around its texts that no loss looks at, so it may never open or close it",
        _UNPAID,
    ),
    Kind.EMPTY_THOUGHT_UNPAID: (
        "the model has to write an empty thought that no loss looks at, so it may think where the data does not",
        "give empty_think its weight again, or a chat template whose generation prompt holds the empty thought",
    ),
    Kind.STOP_UNPAID: (
        "some responses end with a stop that no loss looks at",
        "pay the stop of every response that is paid",
    ),
    Kind.STOP_NEVER_PAID: (
        "no response pays for its stop, so the model does not learn to end",
        "pay the token that generation stops on (the role eos); mask padding by the attention mask, not by its id",
    ),
    Kind.PROMPT_PAID: ("what the user or the system says is paid like a response", _MASK),
    Kind.TEMPLATE_PAID: ("headers and separators that the model is given are paid like a response", _MASK),
    Kind.TOOL_RESULT_PAID: ("results of tools, which the model is given, are paid like a response", _MASK),
    Kind.GIVEN_THOUGHT_PAID: (
        "an empty thought that the generation prompt holds already is paid",
        _MASK,
    ),
    Kind.STOP_MISSING: (
        "a response ends without the token that generation stops on",
        "name the stop with --stop, or use a chat template that prints it behind every response",
    ),
    Kind.CUT_BEFORE_STOP: (
        "rows are cut before the stop of their last response",
        "a larger --max-length (another trainer's max_length), or --truncation drop",
    ),
    Kind.SECOND_BOS: (
        "there is a second BOS, which inference never shows",
        "tokenise rendered text with add_special_tokens=False, or take BOS out of the template or the data",
    ),
    Kind.SECOND_EOS: (
        "there is a second EOS behind the first, which no generation reaches",
        "append EOS only where the template prints none",
    ),
    Kind.EMPTY_RESPONSE: (
        "a response is empty after the template: all it teaches is to stop at once",
        "leave such rows out, or fill in what was to be answered",
    ),
    Kind.DATE_IN_TEMPLATE: (
        "the chat template prints the day of the preparation, so the model learns one day and is asked on another",
        "set the day with --date and give it at inference, or use a chat template that prints none",
    ),
    Kind.BEYOND_EMBEDDING: (
        "ids have no row in the model's embedding",
        "use the model's own tokenizer, or save the model after model.resize_token_embeddings(len(tokenizer))",
    ),
    Kind.DUPLICATE_ROWS: ("rows say the same twice", "keep one of each; a weight on it says how much it counts"),
    Kind.CONTRADICTING_ROWS: (
        "rows answer the same prompt in different ways",
        "keep one answer to each prompt, unless several are meant",
    ),
    Kind.KEYS_NOT_USED: (
        "rows have keys that nothing reads and that may change what is to be learned",
        "put what they say into a text that is read, name what they are with --columns, or drop them",
    ),
    Kind.ROWS_REFUSED: (
        "rows cannot be trained on as they are",
        "mend them, or leave them out on purpose with --skip-bad-rows",
    ),
    Kind.NOTHING_PAID: (
        "nothing in the row is paid",
        "see whether the preparation finds where the response begins, and whether truncation leaves one",
    ),
    Kind.EVERYTHING_PAID: ("every token of the row is paid, the prompt too", _MASK),
    Kind.LAST_TURN_ONLY: (
        "only the last response of a conversation is paid",
        "pay every response, unless the earlier ones are bad examples",
    ),
    Kind.LABELS_SHIFTED: (
        "labels are shifted by one against the ids, and the trainer shifts them again",
        "store labels that stand at the place of their own token",
    ),
    Kind.DOCUMENTS_JOINED: (
        "a packed row joins documents without position ids or lengths that part them",
        "store position_ids that begin anew, or seq_lengths, and use attention that reads them",
    ),
    Kind.OTHER_TOKENIZER: (
        "the ids are of another tokenizer than the model's",
        "prepare the data again with the model's own tokenizer",
    ),
}
"""Kind -> what is wrong, and the cure where a check has none that fits better."""

UNPAID: dict[Role, Kind] = {
    Role.ASSISTANT: Kind.ANSWER_UNPAID,
    Role.THINK: Kind.THOUGHT_UNPAID,
    Role.TOOL_CALL: Kind.CALL_UNPAID,
    Role.FORMAT: Kind.FORMAT_UNPAID,
    Role.EMPTY_THINK: Kind.EMPTY_THOUGHT_UNPAID,
    Role.EOS: Kind.STOP_UNPAID,
}
"""What the model has to write -> the kind of its being unpaid."""

PAID: dict[Role, Kind] = {
    Role.SYSTEM: Kind.PROMPT_PAID,
    Role.USER: Kind.PROMPT_PAID,
    Role.TEMPLATE: Kind.TEMPLATE_PAID,
    Role.TOOL: Kind.TOOL_RESULT_PAID,
}
"""What the model is given -> the kind of its being paid."""


@dataclass(frozen=True)
class AuditContext:
    """What rows are judged by.

    ``role_weights`` are the weights that a config asks for. What it asks for on the prompt is no finding then, nor is a
    response token that a row, a message or a span has set to 0. None: the data was prepared by others, and every paid
    prompt token and every unpaid response token is a finding.

    ``stop_ids`` are the ids that generation stops on. ``embedding_rows`` is None where the model's config does not say.
    """

    tokenizer: Any
    model: str
    stop_ids: frozenset[int]
    bos_id: int | None = None
    eos_id: int | None = None
    embedding_rows: int | None = None
    role_weights: Mapping[Role, float] | None = None
    date: str | None = None
    """The day that was chosen for the chat template to print (``--date``), which is no finding then."""
    normalizer: str = "nonzero"
    """What the weighted sum is divided by, as in `tune`; shares of ``role-mean`` are of the means of the roles."""


@dataclass(frozen=True)
class Case:
    """One place where something is wrong: tokens ``begin`` to ``end`` of a row. ``note`` is what else is to be said of
    it, such as the row that it repeats. ``tokens`` is how many are concerned.
    """

    kind: Kind
    row: AuditRow
    begin: int
    end: int
    note: str = ""

    @property
    def tokens(self) -> int:
        """How many tokens are concerned."""
        return self.end - self.begin


@dataclass(frozen=True)
class TextToken:
    """A token of an example: the text that it adds, its role (None where only ids are there), its weight, and whether
    it is one of those that are wrong.
    """

    text: str
    role: Role | None
    weight: float
    marked: bool = False


@dataclass(frozen=True)
class Finding:
    """All cases of one kind. ``count`` is the number of rows, ``tokens`` that of tokens; ``rows`` names the first;
    ``example`` is the first case with what stands around it.
    """

    kind: Kind
    count: int
    rows: tuple[str, ...]
    example: tuple[TextToken, ...]
    cure: str
    tokens: int = 0

    @property
    def sentence(self) -> str:
        """What is wrong."""
        return self.kind.sentence


@dataclass(frozen=True)
class RoleLine:
    """A role in the data: its target tokens, those of them whose weight is not 0, and the sum of their weights.

    ``share`` is that sum in the sum over all roles, the share of the weighted targets: nan where that is 0. ``role`` is
    None for tokens of rows that have no roles.
    """

    role: Role | None
    tokens: int
    paid: int
    mass: float
    share: float

    @property
    def label(self) -> str:
        """The name of the role; ``unknown`` for None."""
        return self.role.label if self.role is not None else "unknown"

    @property
    def is_given(self) -> bool:
        """Whether the model is given such tokens, so that it does not have to write them."""
        return self.role in PROMPT_ROLES


@dataclass(frozen=True)
class Audit:
    """What a run pays for, and what is wrong with it. ``unseen`` are sentences about what was not looked at, and
    ``cases`` every place of the findings."""

    model: str
    rows: int
    tokens: int
    roles: tuple[RoleLine, ...]
    findings: tuple[Finding, ...]
    unseen: tuple[str, ...] = ()
    cases: tuple[Case, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Material:
    """What an audit is made of: the rows, what they are judged by, sentences about what was not looked at, what was
    seen to be wrong before there were rows, and the values for config.json and the summary that the config left open.
    """

    rows: tuple[AuditRow, ...]
    context: AuditContext
    unseen: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()
    resolved: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[Any, ...] | None = None
    """Checks of ``findings``; None are those of every audit."""
