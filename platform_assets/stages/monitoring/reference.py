"""What a release was trained on, small enough to travel with it: a summary a signal, and how far its own past strayed from it.

Rows of a time-ordered table are not independent draws: blocks of the training data itself differ from the rest by far more than
a test's null allows, and a test alone would fire on every window. So each finding carries the effect that its own blocks showed, and
all of them together the margin that keeps the declared rate of false alarms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from platform_assets.errors import StageError
from platform_assets.networks.tokens import Tokeniser
from platform_assets.specs.model import Season
from platform_assets.stages.monitoring.dependence import (
    ODD,
    Code,
    Dependence,
    Moments,
    choose_codes,
    choose_scored,
    differences,
    encode,
    measure_moments,
    pair_places,
    pool,
    scale_of,
    score_rows,
    weigh_together,
)
from platform_assets.stages.monitoring.embedding import Embedding, embed_rows
from platform_assets.stages.monitoring.evidence import weigh_signal
from platform_assets.stages.monitoring.season import Phase, like_period, phases_of, store_phase
from platform_assets.stages.monitoring.signals import order_by_event, span_of, take_answers, take_labels, take_signals
from platform_assets.stages.monitoring.sketch import Sketch, Summary, merge_sketches, round_to_digits, sketch_signals, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow as pa

    from platform_assets.specs.model import MonitoringSpec
    from platform_assets.specs.records import FeatureSchema

T = TypeVar("T")
LAYERS = 4  # columns and answers, quality, pairs of columns, all columns together; embeddings, where there are any, are one more
TOGETHER = "together"
SHARES = ("quality", TOGETHER)  # layers whose effects are shares of rows
LEANS_ON = 0.05  # share of the total permutation importance from which drifted inputs count against the model
QUALITY_FLOOR = 0.5  # of `min_effect`: a share of rows that are missing or new tells sooner than a distance does
_FEWEST_BLOCKS = 3
_FEWEST_FOR_MARGIN = 6
_FEWEST_FOR_TAIL = 20  # blocks, below which the upper tenth of them is one or two
_FOLDS = 8
_MOST_BLOCKS = 64  # that straying is measured on
_DEVIATIONS = 2.5  # Leys et al. 2013, J. Exp. Soc. Psychol. 49, 764: median and this many scaled deviations, unmoved by outliers
_TIMES = 3
_SMALLEST_RATIO = 0.1
_UPPER, _UPPER_SCORE = 0.9, 1.2816  # a rank above the middle and its normal score: most ratios spread further upwards than down
_MAD_SCALE = 1.4826  # makes the median absolute deviation a standard deviation, for normal values


@dataclass(frozen=True)
class Reference:
    """Summary of the rows a release was trained on.

    `strayed`: by finding, the effect that a block of training rows hardly passes against the others; absent or 0 with too few to tell.
    `margins`: what the thresholds of a layer (columns with answers, quality, pairs, all together) are multiplied with, so that a further
    block of the same kind passes any of all at the declared rate.
    """

    rows: int
    window_rows: int
    first_event: str
    last_event: str
    signals: tuple[Summary, ...]
    strayed: dict[str, float]
    dependence: Dependence | None = None
    margins: dict[str, float] = field(default_factory=dict)
    tokeniser: Tokeniser | None = None
    season: Season | None = None
    phases: tuple[Phase, ...] = ()
    embeddings: tuple[Embedding, ...] = ()

    def like(self, shares: Mapping[int, float]) -> dict[str, Summary]:
        """Return what a window with these shares of rows in each phase is held against."""
        whole = {summary.name: summary for summary in self.signals}
        return like_period(whole, {phase.number: phase for phase in self.phases}, shares) if self.phases and shares else whole


def build_reference(
    train: pa.Table,
    *,
    schema: FeatureSchema,
    probabilities: np.ndarray | None,
    spec: MonitoringSpec,
    importance: Mapping[str, float] | None = None,
    unseen: np.ndarray | None = None,
    tokeniser: Tokeniser | None = None,
    embeddings: tuple[Embedding, ...] = (),
    model: bytes | None = None,
) -> Reference:
    """Summarise training rows (features as plain columns, event time) and the release's answers to them, [rows, classes].

    Rows without an event time are taken in the order they stand in.
    `unseen`: its answers to rows it was not trained on, against which live answers are held; a model is surer of what it has seen.
    `importance`: each feature's share; None where every column counts. `tokeniser`: the one of its texts.
    `embeddings`: what texts and images are turned into, by the `model` where they are a network's.
    With a declared season blocks are held against the like phases of the others, so that thresholds are those of such comparisons.
    """
    if not train.num_rows:
        raise StageError("a drift reference was asked for from no training rows; at least one is needed")
    answers = None if probabilities is None else np.asarray(probabilities)
    if schema.event_time in train.column_names:
        order = order_by_event(train, schema=schema)
        train, answers = train.take(order), None if answers is None else answers[order]
    train = embed_rows(train, embeddings, schema=schema, model=model)
    size = spec.window_rows
    starts = range(0, max(train.num_rows - size, 0) + 1, size)
    ends = [*starts[1:], train.num_rows]  # a rest goes with the last block
    season = spec.season if schema.event_time in train.column_names else None

    def sketch(places: slice | np.ndarray, seed: int) -> Sketch:
        taken, given = train.slice(places.start, places.stop - places.start) if isinstance(places, slice) else train.take(places), None
        given = None if answers is None else answers[places]
        signals = take_signals(taken, schema=schema, probabilities=given, tokeniser=tokeniser)
        labels = (take_labels(taken[schema.target].cast("string")),) if schema.target in taken.column_names else ()
        return sketch_signals([*signals, *labels], seed=seed)

    sketches, parts = [], list[dict[int, Sketch]]()
    for start, end in zip(starts, ends, strict=True):
        sketches.append(sketch(slice(start, end), start))
        if season:
            phase = phases_of(train[schema.event_time].slice(start, end - start), season)
            parts.append({int(one): sketch(start + np.flatnonzero(phase == one), start) for one in np.unique(phase)})
    summaries = summarise(merge_sketches(sketches))
    numbers = sorted({one for part in parts for one in part if one >= 0})
    phases = tuple(store_phase(one, summarise(merge_sketches(part[one] for part in parts if one in part))) for one in numbers)
    places = np.unique(np.linspace(0, len(sketches) - 1, _MOST_BLOCKS).round().astype(int))
    chosen = [sketches[place] for place in places]
    strayed, ratios = _stray(chosen, [parts[place] for place in places] if season else [], spec=spec, importance=importance)
    dependence, joint_ratios = _relate(chosen, summaries, spec=spec, importance=importance)
    if unseen is not None:
        held = summarise(sketch_signals(take_answers(unseen, classes=schema.classes), seed=0))
        summaries = {name: held.get(name, summary) for name, summary in summaries.items()}
    first_event, last_event = span_of(train, schema=schema)
    return Reference(
        rows=train.num_rows,
        window_rows=size,
        first_event=first_event,
        last_event=last_event,
        signals=tuple(summaries.values()),
        strayed={name: value for name, value in strayed.items() if value},
        dependence=dependence,
        margins={
            layer: margin_of(values, rate=spec.false_alarms / layers_of(embeddings), layer=layer)
            for layer, values in {**ratios, **joint_ratios}.items()
        },
        tokeniser=tokeniser,
        season=season,
        phases=phases,
        embeddings=embeddings,
    )


def hardly_passed(effects: np.ndarray) -> np.ndarray:
    """Return median and 2.5 scaled median absolute deviations along the first axis; 0 under three.

    Not the largest: the head of a history is often selected (the first hotel bookings are those made years ahead), and its few odd blocks
    would hide every later drift.
    """
    if len(effects) < _FEWEST_BLOCKS:
        return np.zeros(effects.shape[1:])
    middle = np.median(effects, axis=0)
    limit: np.ndarray = middle + _DEVIATIONS * _MAD_SCALE * np.median(np.abs(effects - middle), axis=0)
    return limit


def shares_hardly_passed(effects: np.ndarray) -> np.ndarray:
    """Return thrice what all blocks but one stayed under: a share of odd rows is nil in most blocks, and their spread says nothing."""
    if len(effects) < _FEWEST_BLOCKS:
        return np.zeros(effects.shape[1:])
    return np.asarray(_TIMES * np.maximum(np.sort(effects, axis=0)[-2], 0.0))


def leans(feature: str, importance: Mapping[str, float] | None) -> float:
    """Return how much the model leans on a feature; 1 for its answers, and for everything where nothing is known of it."""
    return 1.0 if importance is None or not feature else float(importance.get(feature, 0.0))


def layers_of(embeddings: Sequence[Embedding]) -> int:
    """Count the layers that share significance and false alarms."""
    return LAYERS + (1 if embeddings else 0)


def margin_layer(layer: str) -> str:
    """Return the layer whose margin holds; columns, answers and labels share one."""
    return "column" if layer in ("answer", "label") else layer


def floor_of(layer: str, spec: MonitoringSpec) -> float:
    """Return the smallest effect that counts in a layer."""
    return spec.min_effect * (QUALITY_FLOOR if layer == "quality" else 1.0)


def _stray(
    blocks: Sequence[Sketch], parts: Sequence[Mapping[int, Sketch]], *, spec: MonitoringSpec, importance: Mapping[str, float] | None
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Hold each block against all others; return what each finding hardly passes, and each block's largest ratio to that, by layer.

    `parts`: each block's sketches by phase, where a season is declared.
    """
    if len(blocks) < _FEWEST_BLOCKS:
        return {}, {}
    numbers = {one for part in parts for one in part}
    apart = {one: _others([part.get(one) for part in parts]) for one in numbers}
    found = []
    for place, (block, rest) in enumerate(zip(blocks, _others(blocks), strict=True)):
        assert rest is not None
        past, now = summarise(rest), summarise(block)
        if parts:
            there = {one: apart[one][place] for one in parts[place]}
            phases = {one: store_phase(one, summarise(others)) for one, others in there.items() if others is not None and one >= 0}
            past = like_period(past, phases, {one: part.rows / block.rows for one, part in parts[place].items()})
        found.append({finding.name: finding for name in now for finding in weigh_signal(past[name], now[name])})
    names = sorted({name for findings in found for name in findings})
    effects = np.array([[findings[name].effect if name in findings else 0.0 for name in names] for findings in found])
    kinds = {name: finding for findings in found for name, finding in findings.items()}
    layers = np.array([margin_layer(kinds[name].layer) for name in names])
    floors = np.array([floor_of(layer, spec) for layer in layers])
    shares = layers == "quality"

    def limit(of: np.ndarray) -> np.ndarray:
        return np.where(shares, shares_hardly_passed(of), hardly_passed(of))

    counted = np.array([leans(kinds[name].feature, importance) >= LEANS_ON for name in names])
    ratios = against_others(effects, limit, floors=floors)
    largest = {layer: ratios[:, counted & (layers == layer)].max(axis=1, initial=0.0) for layer in dict.fromkeys(layers.tolist())}
    return dict(zip(names, round_to_digits(limit(effects)).tolist(), strict=True)), largest


def _others(blocks: Sequence[Sketch | None]) -> list[Sketch | None]:
    """Return, of each block, all others merged; None where there are none."""

    def merge(one: Sketch | None, other: Sketch | None) -> Sketch | None:
        return one.merge(other) if one and other else one or other

    before = [None, *accumulate(blocks[:-1], merge)]
    after = [*reversed([*accumulate(reversed(blocks[1:]), merge)]), None]
    return [merge(*sides) for sides in zip(before, after, strict=True)]


def against_others(effects: np.ndarray, limit: Callable[[np.ndarray], np.ndarray], *, floors: np.ndarray | float) -> np.ndarray:
    """Return each block's effects over what the *other* blocks' limits are: a block looks tame beside a limit it helped to set.

    In folds of neighbours apart, so that a few limits do for many blocks.
    """
    fold = np.arange(len(effects)) % min(len(effects), _FOLDS)
    ratios = np.empty_like(effects)
    for one in np.unique(fold):
        ratios[fold == one] = effects[fold == one] / np.maximum(floors, limit(effects[fold != one]))
    return ratios


def _relate(
    blocks: Sequence[Sketch], summaries: Mapping[str, Summary], *, spec: MonitoringSpec, importance: Mapping[str, float] | None
) -> tuple[Dependence | None, dict[str, np.ndarray]]:
    """Measure what columns say together, and how far that strays from block to block; ratios as `_stray`."""
    codes = choose_codes({name: summary for name, summary in summaries.items() if summary.feature})
    places = pair_places(codes)
    if not len(places[0]):
        return None, {}
    coded = [encode(block.sample, codes=codes, summaries=summaries) for block in blocks]
    scales = scale_of(np.concatenate(coded))
    parts = [measure_moments(rows, scales=scales) for rows in coded]
    whole = pool(parts)
    each = np.array([leans(summaries[code.signal].feature, importance) for code in codes])
    scored = choose_scored(codes, each)
    judged = [codes[place] for place in scored]

    def weigh(moments: Moments) -> np.ndarray:
        return weigh_together(moments.covariance[np.ix_(scored, scored)], judged)

    # Each block's rows are scored by the others' covariances: rows that were there when it was learnt look less odd than they are. So are
    # those of a single block, part by part: scored by their own, 100 columns called 8.6 % of new rows odd where 5 % are.
    apart = coded if len(coded) > 1 else [coded[0][start::_FOLDS] for start in range(min(_FOLDS, len(coded[0])))]
    moments = parts if len(coded) > 1 else [measure_moments(rows, scales=scales) for rows in apart]
    scores = [
        score_rows(
            rows, scales=scales, scored=scored.tolist(), weights=weigh(pool(_without(moments, place)) if len(moments) > 1 else whole)
        )
        for place, rows in enumerate(apart)
    ]
    odd_below = float(np.quantile(np.concatenate(scores), ODD))
    limits, odd_limit, ratios = np.zeros(len(places[0])), 0.0, {}
    if len(blocks) >= _FEWEST_BLOCKS:
        odd = np.array([np.mean(one < odd_below) for one in scores]) - ODD
        effects = np.stack([differences(pool(_without(parts, place)), part, places=places)[0] for place, part in enumerate(parts)])
        limits, odd_limit = hardly_passed(effects), float(shares_hardly_passed(odd))
        counted = pair_importance(codes, places, summaries=summaries, importance=importance) >= LEANS_ON
        ratios["joint"] = against_others(effects[:, counted], hardly_passed, floors=spec.min_effect).max(axis=1, initial=0.0)
        ratios[TOGETHER] = against_others(odd[:, None], shares_hardly_passed, floors=spec.min_effect)[:, 0]
    dependence = Dependence(
        rows=whole.rows,
        codes=codes,
        scales=tuple(tuple(row) for row in round_to_digits(scales).tolist()),
        covariance=_stored(whole.covariance[places]),
        variance=_stored(whole.variance[places]),
        strayed=_stored(limits),
        scored=tuple(scored.tolist()),
        weights=_stored(weigh(whole).ravel()),
        odd_below=odd_below,
        odd_strayed=odd_limit,
    )
    return dependence, ratios


def _without(parts: Sequence[T], place: int) -> list[T]:
    return [*parts[:place], *parts[place + 1 :]]


def _stored(numbers: np.ndarray) -> tuple[float, ...]:
    return tuple(round_to_digits(numbers).tolist())


def pair_importance(
    codes: Sequence[Code],
    places: tuple[np.ndarray, np.ndarray],
    *,
    summaries: Mapping[str, Summary],
    importance: Mapping[str, float] | None,
) -> np.ndarray:
    """Return how much the model leans on each pair: as much as on the one of both that it leans on less."""
    each = np.array([leans(summaries[code.signal].feature, importance) for code in codes])
    return np.minimum(each[places[0]], each[places[1]])


def margin_of(ratios: np.ndarray, *, rate: float, layer: str) -> float:
    """Return what a further block's ratio passes with a chance of `rate`, as far as these tell; at least 1.

    Student's prediction interval for one more draw, on the median of the logarithms and their spread: the scaled median absolute deviation,
    or what they spread upwards where that is more. Shares are nil in most blocks, so that their spread says too little: never under the
    largest; of few blocks, and of all columns together, one share a block, that alone.
    """
    from scipy.special import stdtrit

    if len(ratios) < _FEWEST_FOR_MARGIN:
        return 1.0
    largest, many = float(ratios.max()) if layer in SHARES else 0.0, len(ratios) >= _FEWEST_FOR_TAIL
    if layer == TOGETHER or (layer in SHARES and not many):
        return max(1.0, largest)
    logs = np.log(np.maximum(ratios, _SMALLEST_RATIO))
    middle = np.median(logs)
    deviation = _MAD_SCALE * np.median(np.abs(logs - middle))
    if many:
        deviation = max(deviation, (np.quantile(logs, _UPPER) - middle) / _UPPER_SCORE)
    limit = np.exp(middle + float(stdtrit(len(logs) - 1, 1 - rate)) * deviation * np.sqrt(1 + 1 / len(logs)))
    return float(max(1.0, limit, largest))
