"""The model room: names -> models; prompts -> answers; token ids -> log-probs."""

from holdfast.lm.model import (
    LM,
    context_length,
    count_parameters,
    load,
    load_config,
    load_tokenizer,
    locate,
    pad_id,
    print_date,
    quiet,
    stop_ids,
    teach_stops,
)

__all__ = [
    "LM",
    "context_length",
    "count_parameters",
    "load",
    "load_config",
    "load_tokenizer",
    "locate",
    "pad_id",
    "print_date",
    "quiet",
    "stop_ids",
    "teach_stops",
]
