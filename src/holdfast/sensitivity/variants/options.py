"""Options in another order. The letter of the right option moves along."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

from holdfast.sensitivity.variants.items import Item


def option_order(item: Item, rng: Random) -> Iterator[tuple[Item, str, dict[str, Any]]]:
    """Distinct drawn orders of the options, the given order left out. Items without options have none."""
    count = len(item.choices)
    seen = {tuple(range(count))}
    while len(seen) < math.factorial(count):
        order = tuple(rng.sample(range(count), count))
        if order in seen:
            continue
        seen.add(order)
        answer = None if item.answer is None else order.index(item.answer)
        made = replace(item, choices=tuple(item.choices[i] for i in order), answer=answer)
        yield made, made.prompt(), {"order": list(order)}
