"""What a home shows of itself, counted on a real instance."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from dagster._core.test_utils import create_run_for_test
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline.tiny import MODEL, TinyHome
from prometheus_client.parser import text_string_to_metric_families

from platform_assets import keys
from platform_assets.components.home_figures import FILE, count
from platform_assets.main_job import site
from platform_assets.specs.events import Event
from platform_assets.stages.telemetry.home_page import HELP, HomeFigures, render_home
from resources.dagster_instance.gate import HELD, HOLD_TAG, MODEL_TAG


def test_a_home_counts_its_runs_events_and_entries_and_its_sensor_shows_them(tmp_path: Path) -> None:
    tiny = TinyHome(tmp_path / "home")
    site.prepare(tiny.settings)
    parts = tiny.parts
    told = {"source": "/tests", "type": "falaj.retraining.asked", "time": datetime.now(UTC)}
    parts.inbox.publish(Event(id="a", data={"model": MODEL}, **told))
    parts.audit.append("launch", subject="run/1", actor="me", detail={})
    parts.audit.append("launch", subject="run/2", actor="me", detail={})
    with tiny.instance() as instance:
        for status, tags in (
            (dg.DagsterRunStatus.NOT_STARTED, {MODEL_TAG: MODEL, HOLD_TAG: HELD}),
            (dg.DagsterRunStatus.NOT_STARTED, {MODEL_TAG: MODEL, HOLD_TAG: "no"}),
            (dg.DagsterRunStatus.STARTED, {}),
            (dg.DagsterRunStatus.SUCCESS, {}),
        ):
            create_run_for_test(instance, job_name="j", status=status, tags=tags)
        now = datetime.now(UTC).timestamp() + 100
        figures = count(parts, instance, now=now)
        again = count(parts, instance, now=now, seen=(figures.audit_entries, figures.audit_newest))
        repository = tiny.repository()
        context = dg.build_sensor_context(instance=instance, repository_def=repository)
        ticked = repository.get_sensor_def(keys.FIGURES_SENSOR).evaluate_tick(context)
    assert {key: many for key, (many, _) in figures.runs.items()} == {(MODEL, "held"): 1, (MODEL, "starting"): 1, ("", "running"): 1}
    assert all(100 <= age < 200 for _, age in figures.runs.values())
    assert (figures.events_waiting, figures.events_dead, figures.audit_entries) == (1, 0, 2)
    assert again == figures, "what was seen is not read again, and stays known"
    assert ticked.run_requests == []
    shown = (tiny.home.metrics / f"{FILE}.prom").read_text()
    assert 'falaj_runs{model="' + MODEL + '",state="held"} 1.0' in shown
    assert "falaj_audit_entries 2.0" in shown


names = st.text(max_size=6)


@settings(max_examples=30)
@given(st.dictionaries(st.tuples(names, names), st.floats(0, 1e9), max_size=4), st.dictionaries(names, st.floats(0, 1e9), max_size=3))
def test_prometheus_reads_back_what_is_written(spent: dict[tuple[str, str], float], budgets: dict[str, float]) -> None:
    text = render_home(HomeFigures(1.0, spent=spent, budgets=budgets, audit_newest=2.0))
    found = {one.name: [] for one in text_string_to_metric_families(text)}
    for family in text_string_to_metric_families(text):
        assert (family.type, family.documentation) == ("gauge", HELP[family.name])
        found[family.name] = [(one.labels, one.value) for one in family.samples]
    assert {(one["tenant"], one["model"]): value for one, value in found.get("falaj_spent_aed", [])} == spent
    assert {one["tenant"]: value for one, value in found.get("falaj_budget_aed", [])} == budgets
    assert found["falaj_audit_newest_timestamp_seconds"] == [({}, 2.0)]
