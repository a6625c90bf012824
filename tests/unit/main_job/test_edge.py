"""An edge bundle: made once, unpacked with nothing else around, served, killed, its log handed over into the home."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from platform_assets import cli, cli_edge
from platform_assets.errors import ReleaseError, ResidencyError, ServingError, SpecError
from platform_assets.main_job import edge
from platform_assets.main_job.operations import open_parts
from platform_assets.stages.serving.edge import read_policy
from resources.serving import PredictClient, log_lines
from resources.testing.released import MODEL, write_released_home
from resources.testing.serving import TINY_ROW, TINY_SCHEMA, _tiny_graph, write_tiny_release

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with one release that a server takes."""
    root = tmp_path_factory.mktemp("home")
    settings = write_released_home(root, schema=TINY_SCHEMA, graph=_tiny_graph(seed=1, breaks_at=None))
    write_tiny_release(root / "made", model=MODEL, seed=2)
    parts = open_parts(settings, MODEL)
    digest = parts.releases.put(root / "made")
    parts.audit.append("release", subject=f"model/{MODEL}", actor="test", detail={"digest": digest, "mlflow_version": "2"})
    return settings, digest


@pytest.fixture(scope="module")
def archive(home, tmp_path_factory):
    settings, digest = home
    path, found, needed = edge.write_bundle(settings, MODEL, out=tmp_path_factory.mktemp("out") / "box.tar.gz", version=digest[:12])
    assert (found, needed, path.stat().st_mode & 0o777) == (digest, ["mean_adr_90d"], 0o600)
    return path


@pytest.fixture(scope="module")
def box(archive, tmp_path_factory):
    """The unpacked bundle, installed with no environment at all."""
    root = tmp_path_factory.mktemp("box")
    subprocess.run(["tar", "--extract", "--file", archive, "--directory", root], check=True)
    (unpacked,) = root.iterdir()
    done = subprocess.run(
        ["env", "-i", f"PREFIX={root}/opt", "PATH=/usr/bin:/bin", "sh", unpacked / "install.sh"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(unpacked)
    return root / "opt" / "current"


def run(box, state, *arguments):
    command = ["env", "-i", f"STATE_DIRECTORY={state}", f"PATH={python_path()}:/usr/bin:/bin", box / "bin" / "falaj-edge", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def python_path():
    return Path(sys.executable).resolve().parent


def serve(box, state):
    process, ready = run(box, state, "serve", "--port", "0"), state / "server.json"
    until = time.monotonic() + 60
    while not ready.exists() or json.loads(ready.read_bytes())["pid"] != process.pid:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)
    return process, PredictClient(json.loads(ready.read_bytes())["url"])


def hand_over(box, state, folder):
    process = run(box, state, "handover", folder)
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def test_a_box_serves_is_killed_goes_on_and_hands_its_whole_log_over(box, home, tmp_path):
    settings, digest = home
    state, link = tmp_path / "state", tmp_path / "link"
    state.mkdir()
    link.mkdir()
    process, client = serve(box, state)
    asked = []
    for at in range(30):
        answer = client.predict(MODEL, [{**TINY_ROW, "booking_id": f"b{at}"}])
        asked.append(answer["request_id"])
    until = time.monotonic() + 30
    while client.request("GET", "/status")["server"]["log_waiting_rows"]:
        assert time.monotonic() < until
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    process, client = serve(box, state)
    answer = client.predict(MODEL, [{**TINY_ROW, "booking_id": "after"}])
    asked.append(answer["request_id"])
    process.terminate()
    assert process.communicate(timeout=30)[1] == ""
    code, said = hand_over(box, state, link)
    assert (code, said) == (0, f"2 segments were brought to {link}; 0 were taken by the home and are gone here.\n")
    assert edge.collect(settings, MODEL, link) == (2, 31)
    assert edge.collect(settings, MODEL, link) == (0, 0)
    rows = [json.loads(line) for file in log_lines(settings.home.serving / "log" / MODEL) for line in file.read_text().splitlines()]
    assert [row["request_id"] for row in rows] == asked
    assert {row["digest"] for row in rows} == {digest}
    assert hand_over(box, state, link)[1].endswith("2 were taken by the home and are gone here.\n")
    assert [path for path in link.rglob("*") if path.is_file()] == []
    assert list((state / "serving" / "log" / MODEL).glob("*.frames")) == []


def test_bad_input_is_one_sentence(box, home, tmp_path, monkeypatch):
    settings, digest = home
    with pytest.raises(ReleaseError, match="given has no release 0000"):
        edge.write_bundle(settings, MODEL, out=tmp_path / "a", version="0000")
    with pytest.raises(SpecError, match="no model of this name"):
        edge.write_bundle(settings, "nobody", out=tmp_path / "a", version=None)
    with pytest.raises(ReleaseError, match=r"cannot be written \(No such file"):
        edge.write_bundle(settings, MODEL, out=tmp_path / "no" / "a", version=digest[:12])
    monkeypatch.setattr(cli_edge, "read_settings", lambda: settings)
    assert "edge alone" in str(CliRunner().invoke(cli.app, ["bundle", MODEL, "--target", "moon"]).exception)
    with pytest.raises(ServingError, match="is no folder"):
        edge.collect(settings, MODEL, tmp_path / "none")
    code, said = hand_over(box, tmp_path, tmp_path / "none")
    assert (code, said) == (1, f"falaj-edge: {tmp_path}/none is no folder: the link is not there; mount it, or name another one\n")


def test_nothing_is_bundled_for_a_country_where_the_data_may_not_be(home, tmp_path):
    settings, digest = home
    for law, error in (("DE", ResidencyError), ("Germany", ReleaseError)):
        with pytest.raises(error, match=law):
            edge.write_bundle(settings, MODEL, out=tmp_path / "a.tar.gz", version=digest[:12], jurisdiction=law)
    assert not list(tmp_path.iterdir())
    *_, refused = open_parts(settings, MODEL).audit.entries()
    assert (refused["action"], refused["actor"]) == ("placement_refused", "falaj bundle")
    assert refused["detail"]["path"][-2:] == [f"model/{MODEL}/deployed", "edge box (where the bundle is brought to)"]


def test_a_full_disk_leaves_no_half_archive(home, tmp_path):
    settings, digest = home
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(ReleaseError, match="File too large"):
            edge.write_bundle(settings, MODEL, out=tmp_path / "a.tar.gz", version=digest[:12])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_what_is_damaged_or_of_another_release_stays_and_is_named(home, tmp_path):
    settings, _ = home
    folder = tmp_path / "0123456789ab" / MODEL
    folder.mkdir(parents=True)
    (folder / "1-0.frames").write_bytes(b"FLJ1 torn")
    (tmp_path / "not-a-device" / MODEL).mkdir(parents=True)
    (tmp_path / "not-a-device" / MODEL / "1-0.frames").write_bytes(b"")
    with pytest.raises(ServingError, match=r"0 segments were taken, 1 were not: .*1-0\.frames is not a segment .*damaged at byte 0"):
        edge.collect(settings, MODEL, tmp_path)
    assert [path.name for path in folder.iterdir()] == ["1-0.frames"]


@pytest.mark.parametrize(
    ("change", "named"),
    [({"port": -1}, "port: found -1"), ({"host": 5}, "host: found 5"), ({"more": 1}, "more: right would be exactly")],
)
def test_a_policy_that_is_wrong_names_the_field(box, tmp_path, change, named):
    policy = json.loads((box / "policy.json").read_bytes())
    (tmp_path / "policy.json").write_text(json.dumps({**policy, **change}))
    with pytest.raises(ServingError, match=named):
        read_policy(tmp_path)
