"""Sequential tests on counts: evidence, at any moment and as often as one looks, that a share lies above or below a limit.

Each test is a mixture of likelihood ratios against the limit (Robbins 1970, Ann. Math. Statist. 41, 1397; the mixture SPRT of Johari,
Pekelis and Walsh 2022, Oper. Res. 70, 1806). Under its null hypothesis it is a non-negative supermartingale that starts at one, so it ever
passes 1/a with a probability of at most a (Ville 1939), whenever one stops: an e-process (Ramdas, Gruenwald, Vovk and Shafer 2023,
Statist. Sci. 38, 576). What is decided by it belongs to `evidence`.
"""

from __future__ import annotations

import math

# Alternatives: odds as multiples of the limit's for a share above it, the share as a part of the limit for one below, each with its weight.
# A flawless release must be let through quickly, so that "never" has the most weight of those below.
_ODDS_ABOVE = ((1.5, 1 / 6), (2.0, 1 / 6), (4.0, 1 / 6), (8.0, 1 / 6), (32.0, 1 / 6), (128.0, 1 / 6))
_PARTS_BELOW = ((0.0, 0.4), (0.125, 0.2), (0.25, 0.2), (0.5, 0.2))


def evidence_above(hits: int, *, trials: int, limit: float) -> float:
    """Natural logarithm of the e-value against "the share of hits is at most `limit`"; 0 at the beginning.

    Valid where each trial hits with a probability of at most `limit` given all before it; only the totals are needed.
    """
    _check(hits, trials, limit)
    if limit >= 1.0:
        return -math.inf if trials else 0.0  # no share is above it
    odds = limit / (1 - limit)
    return _mixture([(times * odds / (1 + times * odds), weight) for times, weight in _ODDS_ABOVE], hits=hits, trials=trials, limit=limit)


def evidence_below(hits: int, *, trials: int, limit: float) -> float:
    """Natural logarithm of the e-value against "the share of hits is at least `limit`", as `evidence_above`."""
    _check(hits, trials, limit)
    if limit >= 1.0:
        return math.inf  # every share that matters is below it: nothing needs to be shown
    return _mixture([(part * limit, weight) for part, weight in _PARTS_BELOW], hits=hits, trials=trials, limit=limit)


def _check(hits: int, trials: int, limit: float) -> None:
    if not 0 <= hits <= trials or not 0.0 < limit <= 1.0:
        raise ValueError(f"{hits} hits of {trials} trials against a limit of {limit}; right are 0 <= hits <= trials and 0 < limit <= 1")


def _mixture(alternatives: list[tuple[float, float]], *, hits: int, trials: int, limit: float) -> float:
    terms = []
    for share, weight in alternatives:
        if share == 0.0 and hits:
            continue
        of_hits = hits * math.log(share / limit) if hits else 0.0
        terms.append(math.log(weight) + of_hits + (trials - hits) * math.log((1 - share) / (1 - limit)))
    highest = max(terms)
    return highest + math.log(sum(math.exp(term - highest) for term in terms))
