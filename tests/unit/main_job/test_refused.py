"""A gate that refuses what was trained is an exit status, with the verdict's own sentence."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from pipeline.tiny import DEFS, MODEL
from typer.testing import CliRunner

from platform_assets import keys
from platform_assets.cli import app
from platform_assets.components.step import RECORD
from platform_assets.errors import ReleaseError
from platform_assets.main_job import loop, run
from platform_assets.main_job.operations import open_parts
from platform_assets.specs.record_json import to_json
from platform_assets.specs.records import GateVerdict
from resources.settings import Home, Settings

SENTENCE = "refused: auroc is 0.5000, asked >= 0.9"


@dataclass
class Jobs:
    """Instead of a training: its verdict."""

    instance: dg.DagsterInstance
    passed: bool
    ran: list[str] = field(default_factory=list)
    bars: Any = None

    def __post_init__(self) -> None:
        self.bars = SimpleNamespace(phase=self._phase)

    @contextmanager
    def _phase(self, *_: object, **__: object):
        yield

    def steps(self, _: str) -> int:
        return 1

    def run(self, name: str) -> None:
        self.ran.append(name)
        verdict = GateVerdict(passed=self.passed, bounds=(), champion=None, sentence="all 0 gates hold" if self.passed else SENTENCE)
        key = dg.AssetKey(keys.model_key(MODEL, "gate_verdict"))
        record = dg.MetadataValue.json(json.loads(to_json(verdict)))
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata={RECORD: record}))


@pytest.mark.parametrize(("passed", "why"), [(True, None), (False, SENTENCE)])
def test_a_training_tells_why_the_gate_refused_it(passed: bool, why: str | None) -> None:
    parts: Any = SimpleNamespace(serving=SimpleNamespace(status=lambda _: {"live": None}))
    with dg.DagsterInstance.ephemeral() as instance:
        jobs: Any = Jobs(instance, passed)
        assert loop.train_and_release(SimpleNamespace(name=MODEL), parts, jobs) == why  # type: ignore[arg-type]
    assert jobs.ran == [keys.train_job(MODEL)]


def test_a_refusal_ends_the_main_job_with_its_sentence() -> None:
    run.raise_refusals({"refused": {}})
    with pytest.raises(ReleaseError, match=rf"^{MODEL} was {SENTENCE}\. No release was made of it; what was live before still is\.$"):
        run.raise_refusals({"refused": {MODEL: SENTENCE}})


def test_the_newest_verdict_decides_what_make_gate_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALAJ_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FALAJ_DEFS", str(DEFS))
    settings = Settings(Home(tmp_path / "home"), "laptop", DEFS, webhook_url=None, serve_port=0, web_port=0)

    def ask() -> Any:
        return CliRunner().invoke(app, ["release", "gate", MODEL])

    assert "no candidate of tiny_cancellations was judged yet" in str(ask().exception)
    audit = open_parts(settings, MODEL).audit
    for passed, sentence in ((False, SENTENCE), (True, "all 2 gates hold")):
        audit.append("gate", subject=f"model/{MODEL}", actor="run/1", detail={"passed": passed, "sentence": sentence})
        found = ask()
        if passed:
            assert (found.exit_code, "all 2 gates hold" in found.output) == (0, True)
        else:
            assert isinstance(found.exception, ReleaseError)
            assert SENTENCE in str(found.exception)
