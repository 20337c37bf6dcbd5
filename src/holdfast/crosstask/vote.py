"""Several answers to one input -> one label with a confidence, or an abstention.

label = the one with most votes;   margin = (votes of the first - votes of the second) / voters, abstentions counted as
voters
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Vote:
    """The outcome: None for an abstention. ``margin`` is the confidence, 0 to 1; ``counts`` the votes per label."""

    label: str | None
    margin: float
    counts: dict[str, int]


def majority(
    answers: Sequence[str | None], labels: Sequence[str], logp_SY: Floats | None = None, *, least_margin: float = 0.0
) -> Vote:
    """Majority vote over answers that are already in the label space (None where a voter named no label: it abstains).

    Args:
        logp_SY: log-probs of the labels from each voter; a tie goes to the tied label with the largest sum. Without
            them, or if the sums tie as well, it goes to the label that is listed first.
        least_margin: abstain below this margin.
    """
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return Vote(None, 0.0, {})
    ranked = sorted((-counts[label], place) for place, label in enumerate(labels) if counts[label])
    most = -ranked[0][0]
    tied = [place for count, place in ranked if -count == most]
    if len(tied) > 1 and logp_SY is not None and len(logp_SY):
        sums = np.round(np.asarray(logp_SY).sum(0), 9)
        tied.sort(key=lambda place: (-sums[place], place))
    second = most if len(tied) > 1 else (-ranked[1][0] if len(ranked) > 1 else 0)
    margin = (most - second) / len(answers)
    votes = {label: counts[label] for label in labels if counts[label]}
    return Vote(labels[tied[0]] if margin >= least_margin else None, margin, votes)


def majority_raw(texts: Sequence[str]) -> str:
    """The released code's vote, to compare with: over raw strings, case and junk included; a tie goes to the smallest
    string.
    """
    counts = Counter(texts)
    return min(counts, key=lambda text: (-counts[text], text))
