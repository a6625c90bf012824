"""What every release store promises, and every attack on a release at rest that is to be refused, each with its reason."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kill_points import killed_at
from s3_process import own_prefix
from vault_double import run_vault

from platform_assets.errors import ReleaseError, SealError
from platform_assets.manifests import MANIFEST_FILE, list_files, read_release
from resources.keys import LaptopKeys, ModelSigner
from resources.kms import KmsKeys
from resources.releases import SealedReleases
from resources.s3_releases import S3Releases
from resources.testing.keys import MemoryKeys
from resources.vault import VaultKeys

SECRET = b"weights that nobody may read at rest"


def make_release(folder, *, number=1, files=None):
    """Lay a release out in the open."""
    folder.mkdir(parents=True)
    for name, content in (files or {"model.onnx": SECRET * number, "schema.json": b"{}", "model_card.md": b"# card"}).items():
        (folder / name).write_bytes(content)
    (folder / MANIFEST_FILE).write_text(json.dumps({"model": "m", "candidate": "c", "files": list_files(folder)}))
    return folder


@pytest.fixture(params=["laptop", "memory"])
def folder_store(request, tmp_path):
    """A store whose folders are attacked."""
    keys = LaptopKeys(tmp_path / "keys") if request.param == "laptop" else MemoryKeys()
    return SealedReleases(tmp_path / "releases", keys=keys, signer=ModelSigner(tmp_path / "keys"))


@pytest.fixture(params=["laptop", "memory", "s3_kms", "s3_vault"])
def store(request, tmp_path):
    if request.param == "s3_vault":
        place = own_prefix(request.getfixturevalue("s3_server"))
        with run_vault(tmp_path / "vault") as (_, where):
            yield S3Releases(place, cache=tmp_path / "cache", keys=VaultKeys(where), signer=ModelSigner(tmp_path / "keys"))
        return
    if request.param == "s3_kms":
        place = own_prefix(request.getfixturevalue("s3_server"))
        yield S3Releases(place, cache=tmp_path / "cache", keys=KmsKeys(place), signer=ModelSigner(tmp_path / "keys"))
        return
    keys = LaptopKeys(tmp_path / "keys") if request.param == "laptop" else MemoryKeys()
    yield SealedReleases(tmp_path / "releases", keys=keys, signer=ModelSigner(tmp_path / "keys"))


def reason_of(store, digest):
    with pytest.raises(SealError, match=f"release {digest[:12]} in .* was refused") as refused:
        store.open(digest)
    return refused.value.reason


def test_what_is_put_comes_back_byte_for_byte_under_the_digest_of_its_plain_files(store, tmp_path):
    folder = make_release(tmp_path / "in")
    digest = store.put(folder)
    found = store.open(digest)
    assert found.files == read_release(folder).files
    assert (found.digest, found.version) == (digest, digest[:12])
    assert digest == read_release(folder).digest
    assert store.digests() == [digest]


def test_the_same_release_put_again_is_left_as_it_lies(store, tmp_path):
    digest = store.put(make_release(tmp_path / "in"))
    before = {path: path.read_bytes() for path in store.path(digest).rglob("*") if path.is_file()}
    assert store.put(tmp_path / "in") == digest
    assert {path: path.read_bytes() for path in store.path(digest).rglob("*") if path.is_file()} == before


def test_no_file_at_rest_holds_a_line_of_the_release(store, tmp_path):
    digest = store.put(make_release(tmp_path / "in"))
    for path in store.path(digest).rglob("*"):
        assert path.is_dir() or SECRET not in path.read_bytes()


def test_a_release_that_is_not_here_is_named(store):
    with pytest.raises(ReleaseError, match="is not in"):
        store.open("0" * 64)


def test_a_release_that_is_not_whole_is_not_put(store, tmp_path):
    folder = make_release(tmp_path / "in")
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(ReleaseError, match=r"model\.onnx was altered"):
        store.put(folder)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_one_flipped_byte_anywhere_is_refused_or_means_nothing(folder_store, tmp_path, data):
    folder = tmp_path / "in"
    digest = folder_store.put(folder if folder.exists() else make_release(folder))
    files = sorted(path for path in folder_store.path(digest).rglob("*") if path.is_file())
    file = data.draw(st.sampled_from(files))
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    file.write_bytes(bytes([*whole[:at], whole[at] ^ (1 << data.draw(st.integers(0, 7))), *whole[at + 1 :]]))
    try:
        found = folder_store.open(digest).files
    except SealError as error:
        assert error.reason in ("altered", "foreign key", "foreign form", "key lost")  # noqa: PT017 - both ends are fine
    else:
        assert file.suffix in (".json", ".sig")  # white space of JSON, or a field that nobody reads
        assert found == read_release(folder).files
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("name", ["model.onnx", "schema.json", "model_card.md", MANIFEST_FILE])
def test_every_byte_of_an_encrypted_file_counts(folder_store, tmp_path, name):
    digest = folder_store.put(make_release(tmp_path / "in"))
    file = folder_store.path(digest) / "files" / name
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(bytes([*whole[:at], whole[at] ^ 128, *whole[at + 1 :]]))
        assert reason_of(folder_store, digest) == "altered"


def test_two_files_that_changed_places_are_refused(folder_store, tmp_path):
    digest = folder_store.put(make_release(tmp_path / "in", files={"model.onnx": b"a" * 64, "schema.json": b"b" * 64}))
    files = folder_store.path(digest) / "files"
    (files / "model.onnx").rename(files / "other")
    (files / "schema.json").rename(files / "model.onnx")
    (files / "other").rename(files / "schema.json")
    assert reason_of(folder_store, digest) == "altered"
    envelope = json.loads((folder_store.path(digest) / "envelope.json").read_text())
    one, two = envelope["files"]["model.onnx"], envelope["files"]["schema.json"]
    envelope["files"] |= {"model.onnx": two, "schema.json": one}  # their keys with them
    (folder_store.path(digest) / "envelope.json").write_text(json.dumps(envelope))
    assert reason_of(folder_store, digest) == "altered"


def test_an_older_release_in_the_place_of_a_newer_one_is_refused(folder_store, tmp_path):
    old, new = folder_store.put(make_release(tmp_path / "old")), folder_store.put(make_release(tmp_path / "new", number=2))
    shutil.rmtree(folder_store.path(new))
    shutil.copytree(folder_store.path(old), folder_store.path(old).with_name(new))
    assert reason_of(folder_store, new) == "altered"  # its keys are bound to the other digest
    assert folder_store.open(old).digest == old


def test_an_older_release_encrypted_anew_in_the_place_of_a_newer_one_is_refused_as_replayed(tmp_path):
    keys, signer = LaptopKeys(tmp_path / "keys"), ModelSigner(tmp_path / "keys")
    store = SealedReleases(tmp_path / "releases", keys=keys, signer=signer)
    old, new = store.put(make_release(tmp_path / "old")), store.put(make_release(tmp_path / "new", number=2))
    release = store.open(old)
    forged = type(release)(new, release.manifest, release.files)  # by one who holds the encryption key, not the signing key
    shutil.rmtree(store.path(new) / "files")
    (store.path(new) / "model.sig").write_bytes((store.path(old) / "model.sig").read_bytes())
    from platform_assets.sealing.release import write_envelope

    (store.path(new) / "envelope.json").write_bytes(write_envelope(store._encrypt(forged, store.path(new))))
    assert reason_of(store, new) == "replayed"


def test_a_release_signed_with_another_key_is_refused(tmp_path):
    keys = LaptopKeys(tmp_path / "keys")
    theirs = SealedReleases(tmp_path / "releases", keys=keys, signer=ModelSigner(tmp_path / "other"))
    ours = SealedReleases(tmp_path / "releases", keys=keys, signer=ModelSigner(tmp_path / "keys"))
    ours.put(make_release(tmp_path / "ours"))
    digest = theirs.put(make_release(tmp_path / "theirs", number=2))
    assert reason_of(ours, digest) == "foreign key"


def test_a_release_without_its_signature_is_refused(folder_store, tmp_path):
    digest = folder_store.put(make_release(tmp_path / "in"))
    (folder_store.path(digest) / "model.sig").unlink()
    assert reason_of(folder_store, digest) == "unsigned"


@pytest.mark.parametrize("file", ["files/model.onnx", "envelope.json"])
def test_a_release_that_lost_a_file_is_refused(folder_store, tmp_path, file):
    digest = folder_store.put(make_release(tmp_path / "in"))
    (folder_store.path(digest) / file).unlink()
    assert reason_of(folder_store, digest) == "altered"


def test_a_file_that_was_not_signed_is_refused_also_where_it_is_well_encrypted(folder_store, tmp_path):
    digest = folder_store.put(make_release(tmp_path / "in"))
    folder = folder_store.path(digest)
    envelope = json.loads((folder / "envelope.json").read_text())
    envelope["files"]["../../../escape"] = envelope["files"]["model.onnx"]
    (folder / "envelope.json").write_text(json.dumps(envelope))
    assert reason_of(folder_store, digest) == "altered"


def test_a_refused_release_is_made_anew_when_it_is_put_again(folder_store, tmp_path):
    digest = folder_store.put(make_release(tmp_path / "in"))
    (folder_store.path(digest) / "model.sig").unlink()
    assert folder_store.put(tmp_path / "in") == digest
    assert folder_store.open(digest).digest == digest


def test_lost_keys_are_said_in_one_sentence(tmp_path):
    store = SealedReleases(tmp_path / "releases", keys=LaptopKeys(tmp_path / "keys"), signer=ModelSigner(tmp_path / "keys"))
    digest = store.put(make_release(tmp_path / "in"))
    public, keyring = tmp_path / "keys" / "releases.pub.pem", tmp_path / "keys" / "releases.keys.json"
    public.rename(tmp_path / "public")
    assert reason_of(store, digest) == "key lost"
    (tmp_path / "public").rename(public)
    keyring.unlink()
    with pytest.raises(SealError, match=r"there is no key file .* restore it from a backup, without it nobody can read") as refused:
        store.open(digest)
    assert "\n" not in str(refused.value)
    store.put(make_release(tmp_path / "next", number=2))  # makes a key file of its own
    with pytest.raises(SealError, match=r"under key [0-9a-f]{8}, which is not in"):
        store.open(digest)


_PUT = (
    "import sys, pathlib; from resources.keys import LaptopKeys, ModelSigner; from resources.releases import SealedReleases\n"
    "root = pathlib.Path(sys.argv[1]); keys = root / 'keys'\n"
    "store = SealedReleases(root / 'releases', keys=LaptopKeys(keys), signer=ModelSigner(keys)); import model_signing.signing\n"
    "print('go', flush=True)\n"
    "for folder in sorted((root / 'in').iterdir()): store.put(folder)\n"
)


def test_a_kill_while_putting_leaves_only_whole_releases(tmp_path):
    for number in range(1, 60):
        make_release(tmp_path / "in" / f"{number:02d}", number=number)
    store = SealedReleases(tmp_path / "releases", keys=LaptopKeys(tmp_path / "keys"), signer=ModelSigner(tmp_path / "keys"))
    for delay in (0.01, 0.05, 0.1):
        process = subprocess.Popen([sys.executable, "-c", _PUT, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"go\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert [store.open(digest).digest for digest in store.digests()] == store.digests()
    assert store.digests()


def readings(store):
    return {digest: store.open(digest).files for digest in store.digests()}


def encrypted(store):
    return {path: path.read_bytes() for digest in store.digests() for path in (store.path(digest) / "files").iterdir()}


def test_a_rotation_brings_every_release_to_a_new_key_and_leaves_each_encrypted_byte(store, tmp_path):
    digests = [store.put(make_release(tmp_path / str(number), number=number)) for number in (1, 2)]
    before, files = readings(store), encrypted(store)
    (old,) = store.key_ids(digests[0])
    rotation = store.rotate()
    assert sorted(rotation.rewrapped) == sorted(digests)
    assert (rotation.forgotten, rotation.unreadable) == ((), {})
    assert store.key_ids(digests[0]) == store.key_ids(digests[1]) == {rotation.added} != {old}
    assert (readings(store), encrypted(store)) == (before, files)


def test_the_key_of_before_is_destroyed_by_the_rotation_after(store, tmp_path):
    digest = store.put(make_release(tmp_path / "in"))
    (old,) = store.key_ids(digest)
    first = store.rotate()
    second = store.rotate()
    assert (first.forgotten, second.forgotten) == ((), (old,))
    assert store.open(digest).digest == digest


def test_a_release_that_cannot_be_read_does_not_keep_the_others_from_their_new_key(folder_store, tmp_path):
    lost, good = (folder_store.put(make_release(tmp_path / str(number), number=number)) for number in (1, 2))
    envelope = json.loads((folder_store.path(lost) / "envelope.json").read_text())
    envelope["files"]["model.onnx"]["key_id"] = "0badc0de"
    (folder_store.path(lost) / "envelope.json").write_text(json.dumps(envelope))
    rotation = folder_store.rotate()
    assert (rotation.rewrapped, list(rotation.unreadable)) == ((good,), [lost])
    assert "under key 0badc0de" in rotation.unreadable[lost]


def test_a_reader_between_two_rotations_reads_on(store, tmp_path, monkeypatch):
    """Envelope read, keys rotated twice (so that its key is gone), then the data key is asked for."""
    from platform_assets.sealing import release as room

    digest = store.put(make_release(tmp_path / "in"))
    read, rotations = room.read_envelope, []

    def read_and_rotate(folder):
        found = read(folder)
        if not rotations:
            rotations.append(None)
            rotations.extend([store.rotate(), store.rotate()])
        return found

    monkeypatch.setattr(room, "read_envelope", read_and_rotate)
    assert store.open(digest).digest == digest
    assert rotations[2].forgotten


def test_a_rotation_killed_at_any_moment_leaves_everything_readable_and_the_next_one_goes_on(tmp_path):
    store = SealedReleases(tmp_path / "releases", keys=LaptopKeys(tmp_path / "keys"), signer=ModelSigner(tmp_path / "keys"))
    for number in (1, 2):
        store.put(make_release(tmp_path / str(number), number=number))
    before, moment = readings(store), 1
    while killed_at(moment, store.rotate):
        assert readings(store) == before
        moment += 1
    assert readings(store) == before
    assert moment > 15
    assert set.union(*(store.key_ids(digest) for digest in store.digests())) == {LaptopKeys(tmp_path / "keys").current()}
