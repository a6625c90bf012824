"""`falaj reproduce` on the finished tiny home: a training comes out the same, one that was tampered with does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pipeline.tiny import MODEL, Finished
from rich.console import Console

from platform_assets.errors import ReleaseError
from platform_assets.main_job import reproduce as verb
from resources.artifacts import folder_digest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def stored(finished: Finished) -> dict[str, str]:
    """Everything that a reproduction must leave as it is: tables, artefacts, features, server."""
    home = finished.tiny.home
    assert finished.tiny.parts.audit.verify()  # opening the log takes what the server noted out of its folder
    roots = [home.root / "tables", home.artefacts, home.releases, home.feast, home.serving]
    return {str(root): folder_digest(root) for root in roots if root.is_dir()}


def test_a_release_trains_to_the_same_bits_and_the_home_stays_as_it_was(finished: Finished, tmp_path: Path) -> None:
    (row,) = finished.result["models"]
    release, before = f"{MODEL}@{row['live_version']}", stored(finished)
    answer = finished.tiny.falaj("reproduce", release, "--json", str(tmp_path / "found.json"))
    assert answer.returncode == 0, answer.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["outcome"] == "equal"
    assert found["training_set"]["found"] == found["training_set"]["digest"]
    assert found["weights"]["different"] == 0
    assert found["weights"]["numbers"] > 100
    assert found["holdout"]["now"] == found["holdout"]["recorded"]
    assert [found["conditions"]["now"]] == found["conditions"]["recorded"]
    assert "bit for bit" in answer.stdout
    assert stored(finished) == before
    assert list((finished.tiny.home.root / "scratch").iterdir()) == []
    told = finished.tiny.parts.audit.entries(subject=f"model/{MODEL}")[-1]
    assert (told["action"], told["detail"]["outcome"], told["detail"]["release"]) == ("reproduction", "equal", found["release"])


def test_a_recorded_training_with_other_weights_is_found_different(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One weight is moved by a millionth and stored under its right hash, as someone with access to the store could; a table is gone too."""
    parts = finished.tiny.parts
    (row,) = finished.result["models"]
    _, digest = verb.find_release(finished.tiny.settings, MODEL, row["live_version"])
    recorded = verb._read_recorded(parts.releases.open(digest))
    forged = tmp_path / "forged"
    forged.mkdir()
    for file in parts.artefacts.path(recorded.training).iterdir():
        (forged / file.name).write_bytes(file.read_bytes())
    weights = torch.load(forged / "checkpoint.pt", weights_only=True)
    next(tensor for tensor in weights.values() if tensor.is_floating_point()).view(-1)[0] += 1e-3
    torch.save(weights, forged / "checkpoint.pt")
    monkeypatch.setattr(type(parts.artefacts), "path", _with_forged(type(parts.artefacts).path, recorded.training, forged))
    monkeypatch.setattr(verb, "_is_there", lambda _parts, pin, column: column != "event_timestamp")
    found = verb.reproduce(finished.tiny.settings, f"{MODEL}@{row['live_version']}", console=Console(quiet=True))
    assert found["outcome"] == "different"
    assert found["weights"]["different"] == 1
    assert "although" in found["sentence"]
    assert all(f"{pin.table} version {pin.version}" in found["sentence"] for pin in recorded.views.values())


def test_an_altered_file_of_the_recorded_training_is_told_before_anything_is_trained(finished: Finished) -> None:
    parts = finished.tiny.parts
    (row,) = finished.result["models"]
    _, digest = verb.find_release(finished.tiny.settings, MODEL, row["live_version"])
    file = parts.artefacts.path(verb._read_recorded(parts.releases.open(digest)).training) / "checkpoint.pt"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(ReleaseError, match="was altered"):
            verb.reproduce(finished.tiny.settings, f"{MODEL}@{row['live_version']}", console=Console(quiet=True))
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("release", "sentence"),
    [
        ("nonsense", "write MODEL@VERSION"),
        (f"{MODEL}@", "write MODEL@VERSION"),
        (f"{MODEL}@0123456789ab", "has no release 0123456789ab; releases:"),
    ],
)
def test_a_bad_name_is_one_clear_sentence(finished: Finished, release: str, sentence: str) -> None:
    with pytest.raises(ReleaseError, match=sentence):
        verb.reproduce(finished.tiny.settings, release, console=Console(quiet=True))


def _with_forged(path, digest, folder):
    return lambda store, wanted: folder if wanted == digest else path(store, wanted)
