"""The model room: names -> models (``model``); prompts -> answers and token ids -> log-probs (``engine``).

tree -> cache -> forward -> score -> engine     with every shared prefix computed once
plain                                           the same, one sequence at a time: the reference
batched                                         whole sequences -> NLL of every token
"""

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
    tell_stops,
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
    "tell_stops",
]
