"""A home is backed up while it works, restored into an empty place, and refused where anything does not fit."""

import shutil
import sqlite3
import subprocess
import sys
import tarfile
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from kill_points import killed_at

from platform_assets.errors import BackupError, StateError
from platform_assets.specs.events import Event
from resources.artifacts import FolderArtifactStore
from resources.audit import SqliteAuditLog
from resources.audit_signature import HeadSigner
from resources.backups import _copies, back_up, restore
from resources.delta_tables import DeltaTableStore
from resources.events import INBOX, OUTBOX, open_queue
from resources.settings import Home


def open_log(home):
    return SqliteAuditLog(home.state, signer=HeadSigner(home.keys))


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "a home" / "of mine")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "weights").write_text("w")
    digest = FolderArtifactStore(home.artefacts).put(tmp_path / "made")
    pin = DeltaTableStore(home.tables).replace("dataset/d/ingested", pa.table({"id": ["a", "b"]}))
    open_log(home).append("made", subject="m", actor="x", detail={"digest": digest, "version": pin.version})
    home.serving.mkdir()
    (home.serving / "state.json").write_text(f'{{"m": {{"loaded": {{"d": "{home.releases}/d"}}}}}}')
    for left in (home.logs, home.run, home.root / "scratch"):
        left.mkdir()
        (left / "x").write_text("of this machine")
    return home


@pytest.fixture
def taken(home, tmp_path):
    back_up(home, tmp_path / "b.falaj", tmp_path / "k.falaj")
    return tmp_path / "b.falaj", tmp_path / "k.falaj"


def names(archive):
    with tarfile.open(archive) as tar:
        return tar.getnames()


def test_a_restored_home_has_the_same_log_tables_and_artefacts_and_goes_on(home, taken, tmp_path):
    there = Home(tmp_path / "elsewhere")
    assert restore(there, *taken)["home"] == str(home.root)
    assert list(there.root.rglob("*-wal")) == []  # whoever looked at the databases has closed them before the tree was brought to the disk
    log = open_log(there)
    assert log.verify() == 1
    (entry,) = log.entries()
    assert (FolderArtifactStore(there.artefacts).path(entry["detail"]["digest"]) / "weights").read_text() == "w"
    tables = DeltaTableStore(there.tables)
    assert tables.read(tables.pin("dataset/d/ingested"))["id"].to_pylist() == ["a", "b"]
    assert tables.merge("dataset/d/ingested", pa.table({"id": ["c"]}), key="id") == (1, 0)
    log.append("after", subject="m", actor="x", detail={})
    assert log.verify() == 2
    assert f'"{there.releases}/d"' in (there.serving / "state.json").read_text()


def test_an_event_that_was_acted_on_during_the_backup_is_in_it_as_one_that_waits(home, tmp_path):
    inbox, outbox = (open_queue(name, url=None, path=home.events) for name in (INBOX, OUTBOX))
    waits = Event(id="1", source="/tests", type="falaj.labels.landed", time=datetime.now(UTC), data={"model": "m"})
    inbox.publish(waits)
    home.instance.mkdir()
    sqlite3.connect(home.instance / "runs.sqlite").execute("PRAGMA user_version = 1").connection.close()
    copies = _copies(home, tmp_path, None)
    assert next(copies)[0] == "instance/runs.sqlite"
    inbox.acknowledge("falaj", [one.token for one in inbox.claim("falaj")])  # its run stands in no copy
    outbox.publish(waits)
    for name, copy in copies:
        if name == "events.sqlite":
            shutil.copyfile(copy, tmp_path / name)
    there = [open_queue(name, url=None, path=tmp_path / "events.sqlite") for name in (INBOX, OUTBOX)]
    assert [queue.waiting("falaj") for queue in there] == [1, 1]


def test_keys_lie_apart_and_what_is_of_this_machine_is_left_out(home, taken):
    archive, keys = taken
    assert not [name for name in names(archive) if name.startswith(("keys/", "run/", "logs/", "scratch/"))]
    assert {"keys/audit.key.pem", "keys/audit.pub.pem"} <= set(names(keys))
    secret = (home.keys / "audit.key.pem").read_bytes()
    with tarfile.open(archive) as tar:
        assert all(secret not in tar.extractfile(member).read() for member in tar.getmembers())
    assert [file.stat().st_mode & 0o077 for file in taken] == [0, 0]


_WORK = """
import sys, pathlib
from resources.artifacts import FolderArtifactStore
from resources.audit import SqliteAuditLog
from resources.audit_signature import HeadSigner
from resources.settings import Home
home, made = Home(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2])
log, store = SqliteAuditLog(home.state, signer=HeadSigner(home.keys)), FolderArtifactStore(home.artefacts)
for n in range(10**6):
    (made / "weights").write_text(str(n))
    log.append("made", subject="m", actor="x", detail={"digest": store.put(made)})
    if n == 3:
        print("go", flush=True)
"""


def test_whatever_a_log_copied_from_a_working_home_names_is_in_the_backup(home, tmp_path):
    worker = subprocess.Popen([sys.executable, "-c", _WORK, str(home.root), str(tmp_path / "made")], stdout=subprocess.PIPE)
    try:
        assert worker.stdout.readline() == b"go\n"
        for number in range(3):
            back_up(home, tmp_path / f"b{number}", tmp_path / f"k{number}")
    finally:
        worker.kill()
        worker.communicate()
    lengths = []
    for number in range(3):
        there = Home(tmp_path / f"there{number}")
        restore(there, tmp_path / f"b{number}", tmp_path / f"k{number}")
        lengths.append(open_log(there).verify())
        store = FolderArtifactStore(there.artefacts)
        assert all(store.path(entry["detail"]["digest"]) for entry in open_log(there).entries())
    assert 4 < lengths[0] < lengths[1] < lengths[2]  # it did work meanwhile


def test_a_backup_killed_at_any_moment_leaves_none_or_a_whole_one(home, tmp_path):
    archive, keys, moment, whole = tmp_path / "b", tmp_path / "k", 1, 0
    while killed_at(moment, lambda: back_up(home, archive, keys)):
        if archive.exists():
            restore(Home(tmp_path / f"there{moment}"), archive, keys)
            whole += 1
        for file in (archive, keys):
            file.unlink(missing_ok=True)
        moment += 5
    assert moment > 20
    assert whole < 3  # most moments come before it is there


def test_a_restoring_killed_at_any_moment_leaves_an_empty_place_or_a_whole_home(taken, tmp_path):
    moment = 1
    while killed_at(moment, lambda: restore(Home(tmp_path / "there"), *taken)):
        if (tmp_path / "there").exists():
            assert open_log(Home(tmp_path / "there")).verify() == 1
            shutil.rmtree(tmp_path / "there")
        moment += 9
    assert moment > 50


def altered(file, change):
    file.write_bytes(change(bytearray(file.read_bytes())))


def flip(content):
    content[len(content) // 2] ^= 1
    return content


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("change", [flip, lambda content: content[: len(content) // 2], lambda content: content[:-600], lambda _: b""])
def test_an_archive_that_was_altered_or_cut_off_is_refused_and_nothing_is_left(taken, tmp_path, which, change):
    altered(taken[which], change)
    with pytest.raises(BackupError, match=r"cannot be read to its end|was altered|bears no manifest") as refused:
        restore(Home(tmp_path / "there"), *taken)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "there").exists()
    assert not list(tmp_path.glob(".there*"))


def test_keys_of_another_backup_are_refused(home, taken, tmp_path):
    back_up(home, tmp_path / "later", tmp_path / "later-keys")
    with pytest.raises(BackupError, match="holds the keys of another backup"):
        restore(Home(tmp_path / "there"), taken[0], tmp_path / "later-keys")


@pytest.mark.parametrize("name", ["../evil", "tables/../../evil", "/{tmp}/evil"])
def test_an_archive_with_a_file_outside_of_it_is_refused(taken, tmp_path, name):
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "archive", "w:gz") as tar:
        member = tarfile.TarInfo(name.format(tmp=str(tmp_path).strip("/")))
        tar.addfile(member)
    with pytest.raises(BackupError, match="evil', which lies outside of it"):
        restore(Home(tmp_path / "in" / "there"), tmp_path / "archive", taken[1])
    assert list(tmp_path.rglob("evil")) == []


def test_a_log_that_was_forged_is_not_brought_back(home, tmp_path):
    with sqlite3.connect(home.state) as state:
        state.execute("DROP TRIGGER audit_no_update")
        state.execute("UPDATE audit SET actor = 'me'")
    back_up(home, tmp_path / "b", tmp_path / "k")
    with pytest.raises(StateError, match="was altered after it was written"):
        restore(Home(tmp_path / "there"), tmp_path / "b", tmp_path / "k")


def test_what_cannot_be_right_is_one_sentence_and_changes_nothing(home, taken, tmp_path):
    with pytest.raises(BackupError, match="is there already"):
        back_up(home, taken[0], tmp_path / "k2")
    with pytest.raises(BackupError, match="lies in the home"):
        back_up(home, home.root / "b", tmp_path / "k2")
    with pytest.raises(BackupError, match="nothing to back up"):
        back_up(Home(tmp_path / "none"), tmp_path / "b2", tmp_path / "k2")
    with pytest.raises(BackupError, match="is not empty"):
        restore(home, *taken)
    with pytest.raises(BackupError, match="there is no file"):
        restore(Home(tmp_path / "there"), tmp_path / "absent", taken[1])
    assert open_log(home).verify() == 1
