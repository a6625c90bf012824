"""What every artefact store promises."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from s3_process import own_prefix

from platform_assets.errors import ReleaseError, StateError
from platform_assets.specs.team import StoreSpec
from resources.artifacts import FolderArtifactStore, folder_digest
from resources.s3 import S3
from resources.s3_artifacts import S3ArtifactStore
from resources.testing.artifacts import MemoryArtifactStore


@pytest.fixture(params=["folder", "s3", "memory"])
def store(request, tmp_path):
    if request.param == "s3":
        return S3ArtifactStore(own_prefix(request.getfixturevalue("s3_server")), cache=tmp_path / "cache")
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


def test_what_is_there_can_be_looked_at(store, tmp_path):
    digest = store.put(make_folder(tmp_path / "in", {"a": "one", "deep/b": "two"}))
    assert (store.peek(digest) / "deep" / "b").read_text() == "two"


@pytest.fixture
def place(s3_server):
    return own_prefix(s3_server)


def test_an_artefact_in_a_store_is_fetched_where_its_cache_is_gone(place, tmp_path):
    digest = S3ArtifactStore(place, cache=tmp_path / "here").put(make_folder(tmp_path / "in", {"a.txt": "one", "deep/b.txt": "two"}))
    elsewhere = S3ArtifactStore(place, cache=tmp_path / "elsewhere")
    assert folder_digest(elsewhere.path(digest)) == digest
    (elsewhere.path(digest) / "a.txt").write_text("0ne")
    assert folder_digest(elsewhere.path(digest)) == digest  # an altered cache is made good


def test_an_artefact_altered_in_a_store_is_refused_not_recalled_and_healed_by_putting_it_again(place, tmp_path):
    folder = make_folder(tmp_path / "in", {"a": "one", "b": "two"})
    here = S3ArtifactStore(place, cache=tmp_path / "here")
    digest = here.put(folder)
    here.remember("work", digest, {})
    place.write(f"artefacts/objects/{digest}/a", b"0ne")
    elsewhere = S3ArtifactStore(place, cache=tmp_path / "elsewhere")
    assert (elsewhere.peek(digest) / "a").read_text() == "0ne"
    with pytest.raises(ReleaseError, match="is not in"):
        elsewhere.path(digest)
    assert elsewhere.recall("work") is None
    assert elsewhere.put(folder) == digest
    assert (S3ArtifactStore(place, cache=tmp_path / "third").path(digest) / "a").read_text() == "one"


def test_a_file_missing_or_a_list_forged_in_a_store_is_no_artefact(place, tmp_path):
    store = S3ArtifactStore(place, cache=tmp_path / "here")
    digest = store.put(make_folder(tmp_path / "in", {"a": "one", "b": "two"}))
    store.remember("work", digest, {})
    place.remove(f"artefacts/objects/{digest}/b")
    assert store.recall("work") is None
    place.write(f"artefacts/lists/{digest}.json", b'{"a": "00"}')
    with pytest.raises(ReleaseError, match="is not in"):
        store.path(digest)


def test_a_kill_before_the_list_leaves_nothing_that_counts_and_the_next_put_makes_it_whole(place, tmp_path):
    folder = make_folder(tmp_path / "in", {"a": "one", "b": "two"})
    digest = folder_digest(folder)
    place.write(f"artefacts/objects/{digest}/a", b"one")  # what such a kill leaves
    store = S3ArtifactStore(place, cache=tmp_path / "here")
    with pytest.raises(ReleaseError, match="is not in"):
        store.path(digest)
    assert store.put(folder) == digest
    assert folder_digest(S3ArtifactStore(place, cache=tmp_path / "other").path(digest)) == digest


def test_a_store_that_does_not_answer_is_one_sentence(tmp_path):
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    gone = S3(StoreSpec(url="s3://falaj/team", endpoint="http://127.0.0.1:1", credentials=tmp_path / "credentials"), tries=1)
    with pytest.raises(StateError, match=r"the store s3://falaj/team at http://127\.0\.0\.1:1 could not be used") as refused:
        gone.read("x")
    assert "\n" not in str(refused.value)
