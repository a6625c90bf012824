"""The gauges, read back by Prometheus' own parser."""

import re

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from platform_assets.stages.telemetry.exposition import HELP, render
from tests.unit.stages.telemetry.tiny import MIB, gpu, sample

LABELS = {"model": "m", "tenant": "t", "profile": "p", "run": "abcd1234"}


def read(text):
    """Values by name and own labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert (family.type, family.documentation) == ("gauge", HELP[family.name])
        for one in family.samples:
            assert one.timestamp is None  # the collector refuses them
            own = frozenset(one.labels.items() - LABELS.items())
            assert LABELS.items() <= one.labels.items()
            assert (one.name, own) not in found
            found[one.name, own] = one.value
    return found


def test_prometheus_reads_every_figure_of_all_ranks_and_gpus():
    newest = [
        sample(10.5, rank=0, gpus=(gpu(0, busy=0.5),), loss=0.4, cpu_percent=150.0),
        sample(11.5, rank=1, gpus=(gpu(3, busy=None, power_watts=None),), loss=0.6, cpu_percent=50.0, data_wait=0.04),
        sample(11.0, rank=2, node=1, private_bytes=None, samples_per_second=None, data_wait=None, loss=None),
    ]
    found = read(render(newest, labels=LABELS))
    assert {name for name, _ in found} == set(HELP)
    plain, first, second = frozenset(), frozenset({("node", "0")}), frozenset({("node", "1")})
    assert found["falaj_training_updated_timestamp_seconds", plain] == 11.5
    assert found["falaj_training_loss", plain] == 0.5
    assert found["falaj_training_samples_per_second", plain] == 2000
    assert abs(found["falaj_training_data_wait_ratio", plain] - 0.03) < 1e-9
    assert (found["falaj_training_cpu_cores", first], found["falaj_training_cpu_cores", second]) == (2.0, 1.0)
    assert found["falaj_training_private_memory_bytes", first] == 1000 * MIB
    assert ("falaj_training_private_memory_bytes", second) not in found
    one, other = first | {("gpu", "0")}, first | {("gpu", "3")}
    assert found["falaj_training_gpu_utilisation_ratio", one] == 0.5
    assert ("falaj_training_gpu_utilisation_ratio", other) not in found
    assert ("falaj_training_gpu_power_watts", other) not in found
    assert found["falaj_training_gpu_temperature_celsius", other] == 60


def test_nothing_known_is_nothing_shown():
    assert render([], labels=LABELS) == ""


@given(st.text(max_size=20))
def test_any_label_reads_back_as_it_was(text):
    (family, *_) = text_string_to_metric_families(render([sample(1.0)], labels={"model": text}))
    assert family.samples[0].labels == {"model": text}


def test_the_how_to_names_every_gauge(checkout):
    told = (checkout / "docs" / "how-to" / "watch-a-training.md").read_text()
    assert [name for name in HELP if f"`{name}`" not in told] == []
    assert set(re.findall(r"falaj_training_\w+", told)) == set(HELP)
