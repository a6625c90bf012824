"""A span for each prediction, within its caller's trace and linked to the one that its release was made in.

Without a tracer nothing here is called, and nothing of a request's way knows of it.
"""

from __future__ import annotations

from random import random
from time import perf_counter
from typing import TYPE_CHECKING

from platform_assets.tracing import Plain, note_span

if TYPE_CHECKING:
    import numpy as np
    from opentelemetry.trace import Tracer

    from platform_assets.stages.serving.batching import Batcher
    from platform_assets.stages.serving.columns import Encoded
    from platform_assets.stages.serving.predicting import Ask, Predictor
    from platform_assets.stages.serving.traffic import Arm


def trace_answers(predictor: Predictor, batcher: Batcher, tracer: Tracer, *, share: float) -> None:
    """Have answers leave a span after they were given: those whose callers trace, and this share of the others.

    The share is drawn here: a span that the SDK decides not to send costs it 40 us.
    """
    deliver = predictor.deliver

    def deliver_traced(arm: Arm, jobs: list[Ask], batch: Encoded, found: np.ndarray) -> None:
        callers = [ask.caller for ask in jobs]  # an answered one is let go of
        deliver(arm, jobs, batch, found)
        now, bundle = perf_counter(), arm.bundle
        for ask, caller in zip(jobs, callers, strict=True):
            if caller.traceparent is None and random() >= share:  # noqa: S311 - nothing hangs on it
                continue
            known: dict[str, Plain] = {"model": bundle.model, "version": bundle.version, "request_id": ask.request_id, "rows": ask.rows}
            note_span(
                tracer, f"predict {bundle.model}", seconds=now - caller.started, parent=caller.traceparent,
                link=ask.route.traces.get(bundle.digest), attributes=known,
            )  # fmt: skip

    batcher.deliver = deliver_traced  # type: ignore[assignment]  # every job is an Ask
