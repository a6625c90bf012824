"""A held GPU without work is told once a spell, whatever way its samples come in."""

from hypothesis import given
from hypothesis import strategies as st

from platform_assets.stages.telemetry.idle import watch_idle
from tests.unit.stages.telemetry.tiny import gpu, sample


def told(busy, *, limit=10.0, every=1.0, chunks=(), index=0, node=0):
    """Alerts for one GPU's utilisation over time, its samples handed over in chunks."""
    samples = [sample(at * every, node=node, gpus=(gpu(index, busy=one),)) for at, one in enumerate(busy)]
    spells, alerts, before = {}, [], 0
    for cut in [*sorted(chunks), len(samples)]:
        spells, new = watch_idle(spells, samples[before:cut], longer_than_seconds=limit)
        alerts += new
        before = max(before, cut)
    return [(spell.since, spell.until) for spell in alerts]


def test_a_spell_longer_than_declared_is_told_once():
    assert told([0.9] * 5 + [0.0] * 60) == [(5.0, 16.0)]


def test_a_spell_just_as_long_as_declared_is_not_told():
    assert told([0.9] + [0.0] * 11 + [0.9]) == []


def test_the_next_spell_is_told_anew():
    assert told([0.0] * 20 + [0.9] + [0.0] * 20) == [(0.0, 11.0), (21.0, 32.0)]


def test_a_drivers_housekeeping_is_no_work():
    assert len(told([0.0, 0.02, 0.01] * 10)) == 1


def test_what_a_gpu_does_not_tell_neither_begins_nor_ends_a_spell():
    assert told([None] * 50) == []
    assert told([0.0] * 6 + [None] * 4 + [0.0] * 6) == [(0.0, 11.0)]


def test_time_in_which_nobody_was_there_is_no_idling():
    assert told([0.0, 0.0], every=3600.0) == []
    assert told([0.0] * 8, every=6.0) == []


def test_gpus_and_nodes_have_spells_of_their_own():
    samples = [
        one for at in range(20) for one in (
            sample(float(at), node=0, gpus=(gpu(0, busy=0.0), gpu(1, busy=0.9))), sample(float(at), rank=1, node=1, gpus=(gpu(0, busy=0.0),)),
        )
    ]  # fmt: skip
    _, alerts = watch_idle({}, samples, longer_than_seconds=10)
    assert sorted((spell.node, spell.gpu) for spell in alerts) == [(0, 0), (1, 0)]


@given(busy=st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.9, None]), max_size=80), chunks=st.lists(st.integers(0, 80), max_size=6))
def test_how_samples_are_handed_over_changes_nothing(busy, chunks):
    assert told(busy, limit=4.0, chunks=[min(cut, len(busy)) for cut in chunks]) == told(busy, limit=4.0)


@given(busy=st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.9]), max_size=80))
def test_every_alert_lies_in_a_stretch_without_work_and_each_stretch_has_at_most_one(busy):
    stretches = "".join("." if one == 0.0 else "x" for one in busy).split("x")
    assert len(told(busy, limit=4.0)) == sum(len(stretch) > 5 for stretch in stretches)
