"""The operator's verbs on sealed releases and their keys, and what the audit log keeps of them."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from platform_assets import cli, cli_governance
from platform_assets.errors import ReleaseError, SealError
from platform_assets.main_job import operations
from resources.artifacts import FolderArtifactStore
from resources.audit import SqliteAuditLog
from resources.audit_signature import HeadSigner
from resources.testing.keys import open_releases
from resources.testing.released import MODEL, write_released_home
from resources.testing.serving import TINY_SCHEMA, _tiny_graph, write_tiny_release


@pytest.fixture
def settings(tmp_path):
    return write_released_home(tmp_path, schema=TINY_SCHEMA, graph=_tiny_graph(seed=1, breaks_at=None))


def actions(settings):
    return [entry["action"] for entry in SqliteAuditLog(settings.home.state, signer=HeadSigner(settings.home.keys)).entries()]


def test_an_exported_release_passes_openssfs_own_verifier(settings, tmp_path):
    digest = operations.export_release(settings, MODEL, None, folder=tmp_path / "out")
    key, signature = settings.home.keys / "releases.pub.pem", tmp_path / "out" / "model.sig"
    command = [sys.executable, "-m", "model_signing", "verify", "key", tmp_path / "out", "--signature", signature, "--public_key", key]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    (tmp_path / "out" / "schema.json").write_text("{}")
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0
    assert (tmp_path / "out" / "model.onnx").read_bytes() == open_releases(settings.home).open(digest)["model.onnx"]
    assert actions(settings)[-1] == "release_exported"
    with pytest.raises(ReleaseError, match="exists"):
        operations.export_release(settings, MODEL, None, folder=tmp_path / "out")


def test_verify_names_what_does_not_hold_and_the_list_goes_on(settings):
    digest, files = operations.verify_release(settings, MODEL, None)
    assert files == 3
    file = open_releases(settings.home).path(digest) / "files" / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(SealError, match=r"model\.onnx: its encrypted bytes were altered in segment 1"):
        operations.verify_release(settings, MODEL, None)
    (row,) = operations.list_releases(settings, MODEL)
    assert (row["candidate"], row["metric"]) == ("refused", "altered")


def test_a_rotation_is_audited_before_and_after(settings):
    rotation = operations.rotate_keys(settings)
    assert len(rotation.rewrapped) == 1
    assert actions(settings)[-2:] == ["key_rotation_began", "keys_rotated"]
    assert operations.verify_release(settings, MODEL, None)[0] == rotation.rewrapped[0]


def test_the_command_says_which_release_cannot_be_read(settings, monkeypatch):
    monkeypatch.setattr(cli_governance, "read_settings", lambda: settings)
    (settings.home.keys / "releases.keys.json").unlink()
    found = CliRunner().invoke(cli.app, ["keys", "rotate"])
    assert isinstance(found.exception, ReleaseError)
    assert "which is not in" in str(found.exception)
    assert "\n" not in str(found.exception)


def test_a_release_older_than_signing_is_sealed_under_its_own_digest(settings, tmp_path):
    digest = write_tiny_release(tmp_path / "old", model=MODEL, seed=3)
    assert FolderArtifactStore(settings.home.artefacts).put(tmp_path / "old") == digest
    SqliteAuditLog(settings.home.state, signer=HeadSigner(settings.home.keys)).append("release", subject=f"model/{MODEL}", actor="test", detail={"digest": digest, "mlflow_version": "2"})  # fmt: skip
    with pytest.raises(ReleaseError, match="seal it with `falaj release seal MODEL`"):
        operations.verify_release(settings, MODEL, digest[:12])
    assert operations.seal_releases(settings, MODEL) == [digest]
    assert operations.verify_release(settings, MODEL, digest[:12])[0] == digest
    assert operations.seal_releases(settings, MODEL) == []
