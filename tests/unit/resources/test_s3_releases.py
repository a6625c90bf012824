"""Releases in a store: attacked there, killed on their way in, and read by the inference server itself, verified as ever."""

import json
import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_process import killed_before_request, own_prefix
from serving_process import MODEL, Server

from platform_assets.errors import ReleaseError, SealError, ServingError, StateError
from platform_assets.manifests import MANIFEST_FILE, list_files
from platform_assets.sealing.signature import PUBLIC_KEY_FILE
from platform_assets.stages.serving.aws import StorePlace, StoreReader, sign
from platform_assets.stages.serving.places import read_places
from platform_assets.stages.serving.stored import StoreOpener
from resources.keys import ModelSigner
from resources.kms import KmsKeys
from resources.s3 import S3
from resources.s3_releases import S3Releases
from resources.testing.serving import write_tiny_release


def make_release(folder: Path, number: int = 1) -> Path:
    folder.mkdir(parents=True)
    for name, content in {"model.onnx": b"weights" * number, "schema.json": b"{}"}.items():
        (folder / name).write_bytes(content)
    (folder / MANIFEST_FILE).write_text(json.dumps({"model": "m", "candidate": "c", "files": list_files(folder)}))
    return folder


@pytest.fixture
def place(s3_server) -> S3:
    return own_prefix(s3_server)


@pytest.fixture
def store(place, tmp_path) -> S3Releases:
    return open_store(place, tmp_path)


def open_store(place: S3, folder: Path) -> S3Releases:
    return S3Releases(place, cache=folder / "cache", keys=KmsKeys(place), signer=ModelSigner(folder / "keys"))


def place_of(place: S3, **changed) -> StorePlace:
    spec = place._server
    return StorePlace(**{"url": place.url, "endpoint": spec.endpoint, "credentials": spec.credentials, "kms": spec.kms, **changed})


def server_side(place: S3, folder: Path, **changed) -> StoreOpener:
    """What the inference server opens releases with, over a cache of its own."""
    reader = StoreReader(place_of(place, **changed))
    return StoreOpener(reader, folder / "keys" / PUBLIC_KEY_FILE, cache=folder / "server", read=reader.read, where=reader.where)


def test_server_and_platform_read_the_same_release_also_after_keys_were_rotated_and_caches_removed(store, place, tmp_path):
    digest = store.put(make_release(tmp_path / "in"))
    server = server_side(place, tmp_path)
    assert server.open(tmp_path, digest=digest).files == store.open(digest).files
    store.rotate()
    store.rotate()
    assert server.open(tmp_path, digest=digest).files == store.open(digest).files
    shutil.rmtree(tmp_path / "server")
    shutil.rmtree(tmp_path / "cache")
    assert server.open(tmp_path, digest=digest).files == store.open(digest).files


@pytest.mark.parametrize("how", ["altered", "removed", "of another release"])
def test_every_object_that_is_not_as_it_was_is_refused_by_both(place, tmp_path, how):
    store = open_store(place, tmp_path)
    digest, other = store.put(make_release(tmp_path / "in")), store.put(make_release(tmp_path / "other", 2))
    names = {one.rpartition("/")[2]: one for one in place.sizes(f"releases/objects/{digest}")}
    others = {one.rpartition("/")[2]: one for one in place.sizes(f"releases/objects/{other}")}
    assert {"model.sig", "model.onnx", "schema.json", MANIFEST_FILE} == set(names)
    pointer = place.read(f"releases/sealed/{digest}.json")
    for name, key in names.items():
        at = f"releases/objects/{digest}/{key}"
        whole = place.read(at)
        if how == "altered":
            place.write(at, bytes([*whole[:-5], whole[-5] ^ 1, *whole[-4:]]))
        elif how == "removed":
            place.remove(at)
        else:
            place.write(at, place.read(f"releases/objects/{other}/{others[name]}"))
        for reader, cache in (
            (lambda: store.open(digest), "cache"),
            (lambda: server_side(place, tmp_path).open(tmp_path, digest=digest), "server"),
        ):
            shutil.rmtree(tmp_path / cache, ignore_errors=True)
            with pytest.raises(SealError, match=f"release {digest[:12]} in .* was refused"):
                reader()
        place.write(at, whole)
    for wrong in (b"{", pointer.replace(b"model.onnx", b"../model.onnx"), pointer.replace(b'\\"wrapped\\": \\"', b'\\"wrapped\\": \\"A')):
        place.write(f"releases/sealed/{digest}.json", wrong)
        with pytest.raises(SealError, match="was refused") as refused:
            store.open(digest)
        assert "\n" not in str(refused.value)
    place.write(f"releases/sealed/{digest}.json", place.read(f"releases/sealed/{other}.json"))
    with pytest.raises(SealError, match="was refused"):
        store.open(digest)


def test_a_put_killed_at_any_request_leaves_nothing_that_is_read_and_the_next_one_goes_on(place, tmp_path):
    folder, killed = make_release(tmp_path / "in"), 0
    digest = json_digest(folder)
    store = open_store(place, tmp_path)
    store._keys.add()
    while killed_before_request(killed + 1, lambda: open_store(place, tmp_path).put(folder)):
        killed += 1
        for name in place.sizes("releases/sealed"):
            assert store.open(name.removesuffix(".json")).digest == digest
    assert killed > 8  # four files, the list, keys
    assert store.digests() == [digest]
    assert store.open(digest).digest == digest


def json_digest(folder: Path) -> str:
    from platform_assets.manifests import read_release

    return read_release(folder).digest


def test_files_of_a_killed_put_go_after_a_day(store, place, tmp_path, monkeypatch):
    digest = json_digest(make_release(tmp_path / "in"))
    place.write(f"releases/objects/{digest}/0killed/model.sig", b"x")
    store.put(tmp_path / "in")
    assert place.read(f"releases/objects/{digest}/0killed/model.sig") == b"x"
    monkeypatch.setattr("resources.s3_releases._ABANDONED_SECONDS", -60.0)
    place.remove(f"releases/sealed/{digest}.json")
    store.put(tmp_path / "in")
    assert place.read(f"releases/objects/{digest}/0killed/model.sig") is None
    assert store.open(digest).digest == digest


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"url": "s3://nowhere/team"}, "was asked for releases/sealed/.* and said: NoSuchBucket"),
        ({"endpoint": "http://127.0.0.1:1"}, "http://127.0.0.1:1 did not answer, 3 times: .*refused"),
        ({"kms": "http://127.0.0.1:1"}, "http://127.0.0.1:1 did not answer, 3 times: .*refused"),
        ({"credentials": Path("/nowhere")}, "/nowhere holds no credentials; right would be"),
    ],
)
def test_what_a_server_cannot_reach_is_one_sentence(store, place, tmp_path, changed, said):
    digest = store.put(make_release(tmp_path / "in"))
    with pytest.raises(ReleaseError, match=said) as refused:
        server_side(place, tmp_path, **changed).open(tmp_path, digest=digest)
    assert "\n" not in str(refused.value)


def test_a_bucket_that_is_missing_and_a_release_that_is_not_there_are_told_by_the_platform_too(store, s3_server, tmp_path):
    elsewhere = open_store(S3(s3_server.model_copy(update={"url": "s3://nowhere/team"})), tmp_path)
    with pytest.raises(StateError, match=r"the store s3://nowhere/team at .* could not be used: .*NoSuchBucket"):
        elsewhere.digests()
    with pytest.raises(
        ReleaseError, match=r"release 000000000000 is not in s3://falaj/[0-9a-f]{8}; restore it from a backup, or release it"
    ):
        store.open("0" * 64)


def test_a_key_that_was_destroyed_is_named_by_the_server(store, place, tmp_path):
    digest = store.put(make_release(tmp_path / "in"))
    (key,) = store.key_ids(digest)
    place.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    for reader in (lambda: store.open(digest), lambda: server_side(place, tmp_path).open(tmp_path, digest=digest)):
        with pytest.raises(SealError, match=f"encrypted under key {key}, which is not in the key service at") as refused:
            reader()
        assert refused.value.reason == "key lost"


HEADERS = st.dictionaries(
    st.from_regex(r"x-amz-[a-z]{1,8}", fullmatch=True), st.from_regex(r"[ -~]{0,20}", fullmatch=True).map(str.strip), max_size=3
)


@settings(max_examples=60)
@given(st.text(max_size=30), HEADERS, st.binary(max_size=50), st.sampled_from(["kms", "s3"]), st.text(min_size=1, max_size=20))
def test_requests_are_signed_as_botocore_signs_them(name, headers, body, service, secret):
    from urllib.parse import quote

    from botocore.auth import S3SigV4Auth

    headers = {key: " ".join(value.split()) for key, value in headers.items() if key != "x-amz-date"}
    path = f"/{quote(name.strip('/.'), safe='-_~')}" if service == "s3" else "/"
    at = datetime(2026, 11, 26, 10, 11, 12, tzinfo=UTC)
    ours = sign("GET", path, {**headers, "host": "127.0.0.1:9000"}, body, service=service, region="eu-1", key="KEY", secret=secret, at=at)
    theirs = AWSRequest("GET", f"http://127.0.0.1:9000{path}", headers={**headers, "host": "127.0.0.1:9000"}, data=body)
    theirs.headers["X-Amz-Content-SHA256"] = ours["x-amz-content-sha256"]
    theirs.context["timestamp"] = "20261126T101112Z"
    theirs.headers["X-Amz-Date"] = "20261126T101112Z"
    auth = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials("KEY", secret), service, "eu-1")
    canonical = auth.canonical_request(theirs)
    signature = auth.signature(auth.string_to_sign(theirs, canonical), theirs)
    assert ours["authorization"].endswith(f"Signature={signature}")


class Shop(Server):
    """A server of a team: it reads releases from the store, and is not told where they lie."""

    def __init__(self, root: Path, place: S3, redis: str) -> None:
        super().__init__(root)
        self.store, self.file = open_store(place, root), root / "team.toml"
        spec = place._server
        self.file.write_text(
            f'[redis]\nurl = "{redis}"\n[store]\nurl = "{place.url}"\nendpoint = "{spec.endpoint}"\n'
            f'kms = "{spec.endpoint}"\ncredentials = "{spec.credentials}"\n'
        )


def test_the_inference_server_reads_releases_from_the_store_alone_and_again_after_a_restart(place, redis_server, tmp_path, monkeypatch):
    from resources import serving

    shop = Shop(tmp_path, place, redis_server)
    write_tiny_release(tmp_path / "tiny", model=MODEL, seed=1)
    digest = shop.store.put(tmp_path / "tiny")
    shop.settings.home.keys.parent.mkdir(parents=True)
    shutil.copytree(tmp_path / "keys", shop.settings.home.keys)
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(serving, "_values_option", lambda _: ["--team", str(shop.file)])
    shop.start("--workers", "1")
    shop.target._ask("POST", MODEL, "load", {"digest": digest, "path": str(tmp_path / "nowhere" / digest)})
    shop.target.set_traffic(MODEL, live=digest)
    rows = [{"lead_time": 3}]
    first = answer(shop, rows)
    shop.kill()
    shop.start("--workers", "1")
    assert answer(shop, rows) == first
    with pytest.raises(ServingError, match=f"release {'0' * 12} is not in {place.url}; restore it from a backup, or release it again"):
        shop.target._ask("POST", MODEL, "load", {"digest": "0" * 64, "path": str(tmp_path)})
    shop.kill(signal.SIGTERM)


def answer(shop: Server, rows):
    with shop.client("predict") as client:
        return client.predict(MODEL, rows)["predictions"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[redis", "cannot be read as the settings file of a team"),
        ("", r"has no table \[redis\]"),
        ('[redis]\nurl = "redis://far/0"', "redis.url: names far, which is not on loopback, without ca"),
        ('[redis]\nurl = "redis://u:secret@127.0.0.1/0"', "redis.url: is no plain address; a password stands in a file of its own"),
        ('[redis]\nurl = "rediss://127.0.0.1/0"', "ca and a scheme of TLS go together"),
        ('[redis]\nurl = "redis://127.0.0.1/0"\npassword_file = "/nowhere"', "redis.password_file: there is no file '/nowhere'"),
        ('[redis]\nurl = "redis://127.0.0.1/0"\n[store]\nurl = "s3://a/b"', "store.endpoint: is missing"),
        ('[redis]\nurl = "redis://127.0.0.1/0"\n[store]\nurl = "s3://a/b"\nendpoint = "http://far:1"', "store.endpoint: names far"),
    ],
)  # fmt: skip
def test_a_servers_settings_file_that_cannot_be_used_is_one_sentence(tmp_path, text, said):
    (tmp_path / "team.toml").write_text(text)
    with pytest.raises(ServingError, match=said) as refused:
        read_places(tmp_path / "team.toml")
    assert "secret" not in str(refused.value)
