"""When a compression search is recalled, when it goes on where it was, and when it is made anew. The search itself is a stand-in here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pipeline.tiny import DEFS, MODEL

from platform_assets.components import training_steps
from platform_assets.components.training_steps import search_candidates
from platform_assets.errors import OutageError, TrainingError
from platform_assets.specs.candidates import Candidate
from platform_assets.specs.catalogue import load_catalogue
from platform_assets.specs.records import Training
from resources.parts import Parts, build_parts
from resources.settings import Home, Settings

FAILED, KILLED = "it failed: External execution process failed with code 1.", "it failed: External execution process failed with code -9."


class Search:
    """A home whose searches do what they are told, and note what their folder held when they began."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = Settings(home=Home(root / "home"), environment="laptop", defs_root=DEFS, webhook_url=None, serve_port=0, web_port=0)
        self.parts: Parts = build_parts(settings, load_catalogue(DEFS))
        self.found_there: list[list[str]] = []
        self.does: Callable[[Path], None] = self.finds()
        (root / "some").mkdir()
        (root / "some" / "file").write_text("some")
        digest = self.parts.artefacts.put(root / "some")
        self.training = Training(digest, digest, 1, 1, {}, {}, {}, 1.0)
        monkeypatch.setattr(training_steps, "run_program", self._run)

    def _run(self, _step: Any, _module: str, _spec: Any, _folder: Path, paths: dict[str, Path], **_: Any) -> None:
        out = paths["--out"]
        out.mkdir(exist_ok=True)
        self.found_there.append(sorted(path.name for path in out.iterdir()))
        self.does(out)

    def finds(self, *names: str) -> Callable[[Path], None]:
        def work(out: Path) -> None:
            made = []
            for name in ("teacher", *names):
                (out / "candidates" / name).mkdir(parents=True)
                (out / "candidates" / name / "model.onnx").write_text(name)
                metrics = {"auroc": 0.8, "log_loss": 0.5, "accuracy": 0.8}
                made.append(asdict(Candidate(name, "d", 1000, 10, metrics, 0.0, 10.0, 1.0, 0.1, 0.2, 0.0, 1.0)))
            (out / "result.json").write_text(json.dumps({"candidates": made, "rejected": [], "seconds": 1.0}))

        return work

    def breaks(self, why: str) -> Callable[[Path], None]:
        def work(out: Path) -> None:
            (out / "spent.json").write_text('{"seconds": 59.0}')
            raise TrainingError(why)

        return work

    def ask(self) -> tuple[Sequence[str], bool]:
        """Names of what a search found, and whether that was recalled."""
        model = self.parts.catalogue.models[MODEL]
        step: Any = SimpleNamespace(
            parts=self.parts, read=lambda *_: self.training, place=lambda **_: SimpleNamespace(got=SimpleNamespace(threads=1))
        )
        made = search_candidates(model, self.parts.catalogue.dataset_of(MODEL), step)
        return [one.name for one in made.record.candidates], made.metadata["reused"]


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    return Search(tmp_path, monkeypatch)


def test_what_was_found_is_recalled(search: Search) -> None:
    search.does = search.finds("distil")
    assert search.ask() == (["teacher", "distil"], False)
    assert search.ask() == (["teacher", "distil"], True)
    assert len(search.found_there) == 1


def test_a_search_that_failed_is_made_anew_with_its_whole_time(search: Search) -> None:
    search.does = search.breaks(FAILED)
    for _ in range(2):
        with pytest.raises(TrainingError):
            search.ask()
    search.does = search.finds("distil")
    assert search.ask() == (["teacher", "distil"], False)
    assert search.found_there == [[], [], []], "nothing of a failed search is left to the next"


def test_a_search_that_was_killed_goes_on_where_it_was(search: Search) -> None:
    search.does = search.breaks(KILLED)
    with pytest.raises(TrainingError):
        search.ask()
    search.does = search.finds("distil")
    search.ask()
    assert search.found_there == [[], ["spent.json"]]


def test_a_search_that_found_nothing_is_made_anew_when_it_is_asked_for_again(search: Search) -> None:
    assert search.ask() == (["teacher"], False)
    search.does = search.finds("distil")
    assert search.ask() == (["teacher", "distil"], False)


def test_a_result_that_could_not_be_judged_is_not_recalled(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    search.does = search.finds("distil")
    with monkeypatch.context() as broken:
        broken.setattr(training_steps, "_candidate_checks", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            search.ask()
    assert search.ask() == (["teacher", "distil"], False)
    assert len(search.found_there) == 2


def test_a_result_that_could_not_be_stored_is_stored_by_the_next_without_searching(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> str:
        raise OutageError("the store does not answer")

    search.does = search.finds("distil")
    with monkeypatch.context() as broken:
        broken.setattr(type(search.parts.artefacts), "put", away)
        with pytest.raises(OutageError):
            search.ask()
    assert search.ask() == (["teacher", "distil"], False)
    assert len(search.found_there) == 1


def test_a_result_of_which_a_file_is_gone_is_searched_for_anew(search: Search) -> None:
    search.does = search.finds("distil")
    search.ask()
    lost = next(digest for digest in search.parts.artefacts.digests() if digest != search.training.digest)
    search.parts.artefacts.remove(lost)
    assert search.ask() == (["teacher", "distil"], False)
