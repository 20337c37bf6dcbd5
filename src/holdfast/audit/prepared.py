"""Data that another trainer has prepared -> rows for the audit.

In: a saved data set, Parquet or JSONL with ``input_ids`` and what says which of them are paid. Out: one ``AuditRow``
per document, packed rows cut where a document begins.

    what is paid      ``labels`` that are not -100; without labels the product of the masks; times weights per token
    documents         ``position_ids`` that begin anew, lengths, bounds, or an ``attention_mask`` that counts documents
    left out          padding; columns that say nothing of the above, which are named

``prepared`` is the whole of it. With rows of Holdfast's own reading beside it, roles come from them
(``matching``).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.audit import signs
from holdfast.audit.matching import Match, Matcher
from holdfast.audit.record import AuditContext, AuditRow, Material
from holdfast.audit.tuned import context_of, tuned
from holdfast.config import AuditConfig
from holdfast.data.chat_template import prepare
from holdfast.data.read import Row, read_rows
from holdfast.data.sources import name_of
from holdfast.errors import HoldfastError
from holdfast.lm import context_length, load_config, load_tokenizer
from holdfast.tables.text import counted

IGNORED = -100
"""The label of a token that no loss looks at."""
MASKS = ("completion_mask", "assistant_masks", "loss_mask")
WEIGHTS = ("loss_weights", "loss_scale", "token_weights", "weights")
LENGTHS = ("seq_lengths", "sequence_lengths", "seq_lens", "lengths")
BOUNDS = ("cu_seqlens", "cu_seq_lens", "cu_seq_lens_q", "sequence_boundaries")
_OTHERS = ("input_ids", "labels", "attention_mask", "position_ids", "packing_params")
_READ = {*MASKS, *WEIGHTS, *LENGTHS, *BOUNDS, *_OTHERS, "cu_seq_lens_k", "token_type_ids"}
ONLY_IDS = (
    "without --data only ids were looked at: stops, BOS and EOS, what is paid as a whole, shifted labels, ends, joined "
    "documents, the tokenizer; what thoughts, calls, results of tools and prompts pay cannot be told"
)


@dataclass(frozen=True)
class PreparedDocument:
    """One document of prepared data. ``is_shifted`` says that its labels stand one place too early; its weights are
    then those that were meant.
    """

    row: AuditRow
    is_shifted: bool = False


@dataclass
class PreparedData:
    """The documents of a source, and what of it was not used or looked odd: name -> how often."""

    documents: list[PreparedDocument] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    empty: int = 0
    padding: int = 0
    unlabelled: int = 0
    odd_labels: int = 0
    masks_beside_labels: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        """What is to be said of the source, in sentences without full stops."""
        notes = []
        if self.unused:
            notes.append("columns not used: " + ", ".join(sorted(self.unused)))
        if self.masks_beside_labels:
            names = ", ".join(sorted(self.masks_beside_labels))
            notes.append(f"there are labels, so masks beside them are not used: {names}")
        if self.empty:
            notes.append(f"left out, as there are no ids in them: {counted(self.empty, 'row')}")
        if self.padding:
            notes.append(f"left out as padding: {counted(self.padding, 'token')}")
        if self.unlabelled:
            notes.append(
                f"neither labels nor masks, so that a trainer pays every token: {counted(self.unlabelled, 'row')}"
            )
        if self.odd_labels:
            notes.append(f"{self.odd_labels:,} labels are neither -100 nor the id of their token; they count as paid")
        return notes


def prepared(config: AuditConfig) -> Material:
    """Return the documents of ``config.prepared``, with roles where ``config.data`` has their rows, and the checks for
    them.

    Raises:
        HoldfastError: names the row that is no prepared one, or that of the data that cannot be read.
    """
    assert config.prepared is not None
    tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    if config.data:
        size = context_length(load_config(config.model, trust_remote_code=config.trust_remote_code), tokenizer)
        read = tuned(replace(config, max_length=size, eval_share=0.0, truncation="keep-start", limit=None))
        context, references = read.context, read.rows
        resolved = {name: read.resolved[name] for name in ("templates", "stops", "date") if name in read.resolved}
        refused = [case.row.place for case in read.cases]
        said = [f"{len(refused):,} rows of the data are refused, the first: {refused[0]}"] if refused else []
    else:
        prepare(tokenizer, config.chat_template, config.chat_template_kwargs, config.stop)
        context, references, resolved, said = context_of(config, tokenizer, None), None, {}, []
    data = read_prepared(itertools.islice(read_rows(config.prepared), config.limit), context)
    material = material_of(data, context, references, name_of(config.data))
    return replace(material, unseen=(*said, *material.unseen), resolved=resolved)


def material_of(
    prepared: PreparedData, context: AuditContext, references: Sequence[AuditRow] | None, data: str = "--data"
) -> Material:
    """Return what an audit of prepared documents is made of.

    Args:
        context: its ``role_weights`` are not looked at: every paid prompt token is a finding.
        references: rows with roles, as Holdfast reads the data that was prepared; None audits ids alone.
        data: what the references are called.

    Raises:
        HoldfastError: there is no document.
    """
    if not prepared.documents:
        raise HoldfastError("no prepared row has a token", hint="prepared rows have input_ids and labels or masks")
    context = replace(context, role_weights=None)
    rows = [document.row for document in prepared.documents]
    shifted = {i for i, document in enumerate(prepared.documents) if document.is_shifted}
    matcher = Matcher(references or (), context)
    matches = [matcher.match(row) for row in rows]
    said = [ONLY_IDS] if references is None else _unmatched(rows, matches, matcher, data)
    rows = [row if match is None else replace(row, roles=match.roles) for row, match in zip(rows, matches, strict=True)]
    by_row = {id(row): match for row, match in zip(rows, matches, strict=True) if match is not None}
    checks = signs.checks(rows, by_row, {id(rows[i]) for i in shifted}, context)
    notes = [*said, *signs.notes(rows, context)]
    return Material(tuple(rows), context, tuple(prepared.notes() + notes), checks=checks)


def _unmatched(rows: Sequence[AuditRow], matches: Sequence[Match | None], matcher: Matcher, data: str) -> list[str]:
    notes = []
    places = [row.place for row, match in zip(rows, matches, strict=True) if match is None]
    if places:
        notes.append(
            f"{len(places):,} of {len(rows):,} documents are no row of {data}, so only their ids were looked at; the "
            f"first: {places[0]}"
        )
    unlike = [match.unlike for match in matches if match is not None and match.unlike]
    if unlike:
        notes.append(
            f"{len(unlike):,} documents have ids that their row of {data} does not have, {sum(unlike):,} in all: as if "
            "another chat template had been used"
        )
    if unused := matcher.unused():
        notes.append(f"{unused:,} of {len(matcher.rows):,} rows of {data} are in no prepared document")
    return notes


# rows -> documents


def read_prepared(rows: Iterable[Row], context: AuditContext) -> PreparedData:
    """Return the documents of prepared rows.

    Raises:
        HoldfastError: names the row and the column that is missing, too short or no list of numbers.
    """
    data = PreparedData()
    for row, place in rows:
        data.documents += documents_of(row, place, context, data)
    return data


def documents_of(
    row: Mapping[str, Any], place: str, context: AuditContext, data: PreparedData
) -> list[PreparedDocument]:
    """Return the documents of one row, and count in ``data`` what of it is not used."""
    ids = _numbers(row, "input_ids", place)
    if ids is None:
        wrong = "'input_ids' is null" if "input_ids" in row else "no column input_ids"
        raise HoldfastError(
            f"{place}: {wrong}; its columns are {', '.join(map(str, row))}",
            hint="--prepared takes what a trainer has tokenised; --data takes texts and messages",
        )
    data.empty += not ids
    data.unused.update(str(name) for name, value in row.items() if name not in _READ and value is not None)
    labels = _per_token(row, "labels", len(ids), place)
    weights, is_shifted = _weights(row, ids, labels, place, data)
    cuts = _beginnings(row, len(ids), place)
    first, last = _without_padding(row, ids, weights, context, place)
    data.padding += len(ids) - (last - first)
    edges = sorted({first, last, *(cut for cut in cuts if first < cut < last)})
    documents: list[PreparedDocument] = []
    for begin, end in itertools.pairwise(edges):
        part, paid = tuple(ids[begin:end]), tuple(weights[begin:end])
        if context.tokenizer is not None and _is_padding(part, paid, context):
            data.padding += len(part)
            continue
        name = f"{place}, document {len(documents) + 1}" if len(edges) > 2 else place
        documents.append(PreparedDocument(AuditRow(name, part, paid), is_shifted))
    return documents


def _numbers(row: Mapping[str, Any], name: str, place: str) -> list[int] | None:
    """A column as a list of whole numbers; None where it is absent."""
    values = row.get(name)
    if values is None:
        return None
    values = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(values, list | tuple) and len(values) == 1 and isinstance(values[0], list | tuple):
        values = values[0]  # a batch of one
    if not isinstance(values, list | tuple) or not all(type(value) in (int, bool) for value in values):
        raise HoldfastError(f"{place}: '{name}' is no list of whole numbers", hint="one row holds one list of ids")
    return [int(value) for value in values]


def _per_token(row: Mapping[str, Any], name: str, size: int, place: str) -> list[int] | None:
    values = _numbers(row, name, place)
    if values is not None and len(values) != size:
        raise HoldfastError(f"{place}: {size} input_ids, but {len(values)} values of '{name}'")
    return values


def _weights(
    row: Mapping[str, Any], ids: Sequence[int], labels: Sequence[int] | None, place: str, data: PreparedData
) -> tuple[list[float], bool]:
    """The weight of each token, and whether the labels that say so are shifted by one."""
    masks = {name: mask for name in MASKS if (mask := _per_token(row, name, len(ids), place)) is not None}
    shift = 0 if labels is None else shift_of(ids, labels)
    if labels is not None:
        data.masks_beside_labels.update(masks)
        last = IGNORED if labels[-1:] in ([], [IGNORED]) else ids[-1]  # nothing says it: as its neighbour
        moved = {1: [IGNORED, *labels[:-1]], 0: labels, -1: [*labels[1:], last]}
        labels = moved[shift]
        weights = [float(label != IGNORED) for label in labels]
        data.odd_labels += sum(label not in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    else:
        data.unlabelled += not masks
        weights = [float(all(bits)) for bits in zip(*masks.values(), strict=True)] if masks else [1.0] * len(ids)
    for name in WEIGHTS:
        values = row.get(name)
        if values is None:
            continue
        if not isinstance(values, list | tuple) or len(values) != len(ids):
            raise HoldfastError(f"{place}: '{name}' does not give a number for each of {len(ids)} input_ids")
        factors = [_weight(value, f"{place}: '{name}'") for value in values]
        weights = [weight * factor for weight, factor in zip(weights, factors, strict=True)]
    return weights, shift != 0


def _weight(value: Any, place: str) -> float:
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise HoldfastError(f"{place} holds {value!r}, which is no weight", hint="weights are numbers from 0 upwards")
    return float(value)


def shift_of(ids: Sequence[int], labels: Sequence[int]) -> int:
    """Return 1 where the labels are the ids of the *next* tokens, -1 where they are those of the tokens before, else 0.

    >>> [shift_of([5, 6, 7, 8], labels) for labels in ([-100, 7, 8, -100], [-100, -100, 6, 7], [-100, 6, 7, 8])]
    [1, -1, 0]
    """
    for shift in (1, -1):
        paid = [i for i, label in enumerate(labels) if label != IGNORED and 0 <= i + shift < len(ids)]
        own = sum(labels[i] == ids[i] for i in paid)
        moved = sum(labels[i] == ids[i + shift] for i in paid)
        if len(paid) > 1 and moved >= 0.95 * len(paid) and own < 0.5 * len(paid):
            return shift
    return 0


def _beginnings(row: Mapping[str, Any], size: int, place: str) -> set[int]:
    """Where documents begin in a packed row, as far as its columns say."""
    positions = _per_token(row, "position_ids", size, place)
    if positions is not None:
        return {i for i in range(1, size) if positions[i] <= positions[i - 1]}
    for name in LENGTHS:
        lengths = _numbers(row, name, place)
        if lengths is not None:
            if min(lengths, default=0) < 0:
                raise HoldfastError(f"{place}: '{name}' holds {min(lengths)}, which is no length")
            if sum(lengths) != size:
                raise HoldfastError(f"{place}: '{name}' adds up to {sum(lengths)}, not to its {size} input_ids")
            return set(itertools.accumulate(lengths))
    params = row.get("packing_params") or {}
    if not isinstance(params, Mapping):
        raise HoldfastError(f"{place}: 'packing_params' is no object", hint='{"cu_seqlens": [0, 5, 9]}')
    bounds = {**params, **row}
    for name in BOUNDS:
        edges = _numbers(bounds, name, place)
        if edges is not None:
            if edges[:1] != [0] or edges[-1] > size:
                raise HoldfastError(f"{place}: '{name}' does not run from 0 to its {size} input_ids")
            return set(edges)
    numbers = _per_token(row, "attention_mask", size, place) or []
    return {i for i in range(1, size) if max(numbers, default=0) > 1 and numbers[i] != numbers[i - 1]}


def _without_padding(
    row: Mapping[str, Any], ids: Sequence[int], weights: Sequence[float], context: AuditContext, place: str
) -> tuple[int, int]:
    """Begin and end of what is no padding: by the attention mask, then by the id that pads and is not paid."""
    first, last = 0, len(ids)
    attended = [i for i, bit in enumerate(_per_token(row, "attention_mask", len(ids), place) or []) if bit]
    if attended:
        first, last = attended[0], attended[-1] + 1
    pad = getattr(context.tokenizer, "pad_token_id", None)
    end = last
    while pad is not None and end > first + 1 and ids[end - 1] == pad and not weights[end - 1]:
        end -= 1
    is_stop = pad in context.stop_ids and end < last and ids[end - 1] != pad
    return first, end + is_stop  # where the stop pads, too, the first one is the stop


def _is_padding(ids: Sequence[int], weights: Sequence[float], context: AuditContext) -> bool:
    pad = getattr(context.tokenizer, "pad_token_id", None)
    return pad is not None and not any(weights) and all(token == pad for token in ids)


def batch_rows(batch: Mapping[str, Any], place: str) -> Iterator[Row]:
    """Yield the rows of a collated batch, as ``read_prepared`` takes them. Values per token are tensors [B, T]; those
    of a packed batch that stand for all of it (``cu_seq_lens_q``) belong to its only row.
    """
    size = len(batch["input_ids"])
    for number in range(size):
        row = {}
        for name in batch.keys() & _READ:
            value = batch[name]
            value = value.tolist() if hasattr(value, "tolist") else value
            if name in BOUNDS and size == 1:
                row[name] = value
            elif isinstance(value, list) and len(value) == size and name not in BOUNDS:
                row[name] = value[number]
        yield row, f"{place}, row {number + 1}"
