"""What every artefact store promises."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from platform_assets.errors import ReleaseError
from resources.artifacts import FolderArtifactStore, folder_digest
from resources.testing.artifacts import MemoryArtifactStore


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    return FolderArtifactStore(tmp_path / "store") if request.param == "folder" else MemoryArtifactStore(tmp_path / "scratch")


def make_folder(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_what_is_put_comes_back_byte_for_byte(store, tmp_path):
    folder = make_folder(tmp_path / "in", {"a.txt": "one", "deep/b.txt": "two"})
    found = store.path(store.put(folder))
    assert {path.relative_to(found).as_posix(): path.read_text() for path in found.rglob("*") if path.is_file()} == {
        "a.txt": "one",
        "deep/b.txt": "two",
    }


def test_the_digest_follows_names_and_contents_and_nothing_else(store, tmp_path):
    first = store.put(make_folder(tmp_path / "1", {"a": "x", "b": "y"}))
    assert store.put(make_folder(tmp_path / "2", {"b": "y", "a": "x"})) == first
    assert store.put(make_folder(tmp_path / "3", {"a": "y", "b": "x"})) != first
    assert store.put(make_folder(tmp_path / "4", {"a": "x", "c": "y"})) != first
    assert len(first) == 64


def test_a_missing_artefact_is_refused_in_one_sentence(store):
    with pytest.raises(ReleaseError, match="is not in"):
        store.path("0" * 64)


def test_work_is_recalled_with_its_note_and_the_latest_record_wins(store, tmp_path):
    first, second = (store.put(make_folder(tmp_path / name, {"a": name})) for name in "12")
    assert store.recall("work: a/b") is None
    store.remember("work: a/b", first, {"rows": 3})
    store.remember("work: a/b", second, {"rows": 4})
    assert store.recall("work: a/b") == (second, {"rows": 4})


def test_work_whose_artefact_is_gone_is_not_recalled(store):
    store.remember("work", "1" * 64, {})
    assert store.recall("work") is None


def test_an_altered_artefact_is_refused_not_recalled_and_healed_by_putting_it_again(tmp_path):
    store = FolderArtifactStore(tmp_path / "store")
    folder = make_folder(tmp_path / "in", {"a": "one", "b": "two"})
    digest = store.put(folder)
    store.remember("work", digest, {})
    (store.path(digest) / "a").write_text("0ne")
    with pytest.raises(ReleaseError, match="altered"):
        store.path(digest)
    assert store.recall("work") is None
    assert store.put(folder) == digest
    assert (store.path(digest) / "a").read_text() == "one"
    (store.path(digest) / "extra").write_text("smuggled in")
    with pytest.raises(ReleaseError, match="altered"):
        FolderArtifactStore(tmp_path / "store").path(digest)


def test_a_link_is_not_stored_because_its_bytes_are_elsewhere(tmp_path):
    folder = make_folder(tmp_path / "in", {"a": "one"})
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(ReleaseError, match="plain file"):
        FolderArtifactStore(tmp_path / "store").put(folder)


def test_a_name_that_is_no_digest_cannot_walk_out_of_the_store(tmp_path):
    with pytest.raises(ReleaseError, match="64 hexadecimal digits"):
        FolderArtifactStore(tmp_path / "store").path("../secrets")


def test_a_kill_while_putting_leaves_only_whole_artefacts(tmp_path):
    folder = make_folder(tmp_path / "in", {f"file-{index}": str(index) * 20_000 for index in range(60)})
    code = (
        "import sys, pathlib; from resources.artifacts import FolderArtifactStore\n"
        "store, folder = FolderArtifactStore(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2])\n"
        "for n in range(10**6):\n"
        "    (folder / 'n').write_text(str(n)); store.remember(f'work {n}', store.put(folder), {})\n"
        "    n or print('go', flush=True)\n"  # one is whole, however busy the machine is
    )
    for delay in (0.05, 0.11, 0.23):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "store"), str(folder)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    store = FolderArtifactStore(tmp_path / "store")
    objects = list((tmp_path / "store" / "objects").iterdir())
    assert objects
    assert all(folder_digest(path) == path.name for path in objects)
    assert store.recall("work 0") is not None


def test_a_removed_artefact_is_gone_and_can_be_stored_again(store, tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "a").write_text("x")
    digest = store.put(folder)
    store.remember("work", digest, {})
    assert digest in store.digests()
    store.remove(digest)
    store.remove(digest)
    assert digest not in store.digests()
    assert store.recall("work") is None
    with pytest.raises(ReleaseError):
        store.path(digest)
    assert store.put(folder) == digest
