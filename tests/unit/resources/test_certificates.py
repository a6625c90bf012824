"""The small authority and what it signs: whole after a kill at any moment, renewed in time, and clear where something is lost."""

from __future__ import annotations

import os
import random
import signal
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from platform_assets.errors import ServingError, StateError
from platform_assets.identity.services import INFERENCE, PLATFORM, SERVICES, read_service, uri_of
from resources import serving
from resources.authority import LIFE, issue, make_authority, read_authorities, write_authorities
from resources.certificates import AUTHORITY_FILE, client_context, ensure, files_of, rotate
from resources.settings import Home, Settings, read_settings


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    ensure(tmp_path / "keys")
    return tmp_path / "keys"


def settings_of(root: Path, mtls: str) -> Settings:
    return Settings(home=Home(root), environment="laptop", defs_root=root, webhook_url=None, serve_port=0, web_port=0, mtls=mtls)


def leaf(keys: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((keys / "services" / f"{name}.pem").read_bytes())


def write_leaf(keys: Path, name: str, *, left: timedelta) -> None:
    (authority,) = read_authorities(keys / AUTHORITY_FILE)
    made = issue(authority, name, now=datetime.now(UTC) + left - timedelta(hours=24))
    (keys / "services" / f"{name}.pem").write_bytes(made)


def test_each_service_has_a_key_of_its_own_that_others_cannot_read(keys):
    assert len({leaf(keys, name).public_key().public_numbers() for name in SERVICES}) == len(SERVICES)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (keys / AUTHORITY_FILE, *(keys / "services").iterdir())}
    assert modes.pop("ca.pem") == 0o644
    assert set(modes.values()) == {0o600}
    assert (keys / "services").stat().st_mode & 0o777 == 0o700


def test_certificates_hold_by_a_second_implementation_of_the_standard(keys):
    (authority,) = read_authorities(keys / AUTHORITY_FILE)
    store = PolicyBuilder().store(Store([authority.certificate]))
    for host in (x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))):
        store.build_server_verifier(host).verify(leaf(keys, INFERENCE), [])
    verified = store.build_client_verifier().verify(leaf(keys, PLATFORM), [])
    assert [one.value for one in verified.subjects] == [uri_of(PLATFORM)]
    with pytest.raises(VerificationError):
        store.build_client_verifier().verify(leaf(keys, INFERENCE), [])


def test_what_the_authority_signs_for_another_host_holds_nowhere(keys, tmp_path):
    """Its key, stolen, makes no certificate for a bank: the authority is constrained."""
    (authority,) = read_authorities(keys / AUTHORITY_FILE)
    made = x509.load_pem_x509_certificate(issue(authority, INFERENCE, now=datetime.now(UTC)))
    builder = x509.CertificateBuilder(
        authority.certificate.subject, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bank")]), authority.key.public_key(), 7, made.not_valid_before_utc, made.not_valid_after_utc
    )  # fmt: skip
    for extension in made.extensions:
        value = (
            x509.SubjectAlternativeName([x509.DNSName("bank.example")])
            if extension.oid == x509.OID_SUBJECT_ALTERNATIVE_NAME
            else extension.value
        )
        builder = builder.add_extension(value, critical=extension.critical)
    file = tmp_path / "bank.pem"
    file.write_bytes(
        authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)
    )
    assert handshake(file, keys / "services" / "ca.pem", host="bank.example") == "permitted subtree violation"
    good = keys / "services" / f"{INFERENCE}.pem"
    assert handshake(good, keys / "services" / "ca.pem", host="localhost") == ""


def handshake(pair: Path, trusted: Path, *, host: str) -> str:
    """Let a client meet a server in memory; what the client holds against it."""
    served, asked = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=trusted)
    served.load_cert_chain(pair)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = served.wrap_bio(to_server, to_client, server_side=True)
    client = asked.wrap_bio(to_client, to_server, server_hostname=host)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
    return ""


def test_what_has_a_third_of_its_life_left_is_renewed_and_nothing_else(keys):
    write_leaf(keys, PLATFORM, left=timedelta(hours=7, minutes=59))
    write_leaf(keys, INFERENCE, left=timedelta(hours=8, minutes=1))
    before = {name: leaf(keys, name).serial_number for name in SERVICES}
    ensure(keys)
    assert {name for name in SERVICES if leaf(keys, name).serial_number != before[name]} == {PLATFORM}
    assert timedelta(hours=23) < leaf(keys, PLATFORM).not_valid_after_utc - datetime.now(UTC) <= timedelta(hours=24)


def test_an_authority_near_its_end_gets_a_successor_that_is_trusted_before_it_signs(keys, monkeypatch):
    now = datetime.now(UTC)
    old = make_authority(now - LIFE + timedelta(days=29))
    write_authorities(keys / AUTHORITY_FILE, [old])
    ensure(keys)
    kept, successor = read_authorities(keys / AUTHORITY_FILE)
    assert (kept.certificate, (keys / "services" / "ca.pem").read_bytes()) == (old.certificate, old.pem + successor.pem)
    assert all(old.signed(leaf(keys, name)) for name in SERVICES)
    older = make_authority(now - timedelta(hours=2))
    write_authorities(keys / AUTHORITY_FILE, [old, older])
    write_leaf_of(keys, old)
    ensure(keys)
    assert older.signed(leaf(keys, PLATFORM))
    assert old.signed(leaf(keys, INFERENCE))  # holds until it is due


def write_leaf_of(keys: Path, authority) -> None:
    (keys / "services" / f"{PLATFORM}.pem").write_bytes(issue(authority, PLATFORM, now=datetime.now(UTC) - timedelta(hours=20)))


def test_an_authority_that_ended_is_neither_trusted_nor_kept(keys):
    write_authorities(keys / AUTHORITY_FILE, [make_authority(datetime.now(UTC) - LIFE - timedelta(hours=1))])
    ensure(keys)
    (authority,) = read_authorities(keys / AUTHORITY_FILE)
    assert authority.until > datetime.now(UTC) + timedelta(days=300)
    assert all(authority.signed(leaf(keys, name)) for name in SERVICES)


def test_a_rotation_leaves_nothing_of_before(keys):
    (old,) = read_authorities(keys / AUTHORITY_FILE)
    rotate(keys, heard_seconds=0)
    assert old.pem not in (keys / "services" / "ca.pem").read_bytes()
    assert not any(old.signed(leaf(keys, name)) for name in SERVICES)


@pytest.mark.parametrize("content", [None, b"", b"nothing", b"-----BEGIN " + b"PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_lost_authority_is_one_sentence_and_a_rotation_makes_another(keys, content):
    if content is None:
        (keys / AUTHORITY_FILE).unlink()
    else:
        (keys / AUTHORITY_FILE).write_bytes(content)
    with pytest.raises(
        StateError, match=r"authority\.pem.* restore it from a backup, or make another with `falaj keys rotate --services`"
    ) as refused:
        ensure(keys)
    assert "\n" not in str(refused.value)
    rotate(keys, heard_seconds=0)
    ensure(keys)


_ISSUE = """
import sys, pathlib
from resources.certificates import rotate
print("ready", flush=True)
while True:
    rotate(pathlib.Path(sys.argv[1]), heard_seconds=0.002)
"""


def test_a_kill_amid_a_rotation_leaves_pairs_whole_and_trusted_and_the_next_one_ends_it(keys):
    rng = random.Random(3)
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", _ISSUE, str(keys)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
        )
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.0, 0.06))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for name in SERVICES:  # a key and its own certificate, of before or of after
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(keys / "services" / f"{name}.pem")
        assert read_authorities(keys / AUTHORITY_FILE)
        ensure(keys)
        authorities = read_authorities(keys / AUTHORITY_FILE)
        assert (keys / "services" / "ca.pem").read_bytes() == b"".join(one.pem for one in authorities)
        assert all(any(one.signed(leaf(keys, name)) for one in authorities) for name in SERVICES)
    rotate(keys, heard_seconds=0)
    (authority,) = read_authorities(keys / AUTHORITY_FILE)
    assert authority not in authorities
    assert (keys / "services" / "ca.pem").read_bytes() == authority.pem
    assert all(authority.signed(leaf(keys, name)) for name in SERVICES)


def test_a_folder_that_others_write_is_used_as_it_is(keys, tmp_path):
    folder = tmp_path / "mounted"
    settings = settings_of(tmp_path, str(folder))
    with pytest.raises(
        StateError,
        match=r"FALAJ_MTLS is '.*mounted', where there is no tls\.crt; right would be a folder with tls\.crt, tls\.key and ca\.crt",
    ):
        files_of(settings, PLATFORM)
    folder.mkdir()
    for name, source in (("tls.crt", PLATFORM), ("tls.key", PLATFORM), ("ca.crt", "ca")):
        (folder / name).write_bytes((keys / "services" / f"{source}.pem").read_bytes())
    assert client_context(settings) is not None
    (authority,) = read_authorities(keys / AUTHORITY_FILE)
    ended = issue(authority, PLATFORM, now=datetime(2026, 1, 1, tzinfo=UTC))
    for name in ("tls.crt", "tls.key"):
        (folder / name).write_bytes(ended)
    with pytest.raises(ServingError, match=r"tls\.crt ended at 2026-01-02 00:00:00 UTC; whoever writes it has to renew it"):
        client_context(settings)
    (folder / "tls.key").write_text("nothing")
    with pytest.raises(ServingError, match="holds no certificate, its key and authorities in PEM form"):
        client_context(settings)
    assert client_context(replace(settings, mtls="off")) is None


def test_a_server_that_was_started_without_certificates_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "find_server", lambda _home: serving.RunningServer(1, "http://127.0.0.1:1"))
    with pytest.raises(ServingError, match=r"FALAJ_MTLS is local, and http://127\.0\.0\.1:1 was started without; `falaj down` stops it"):
        serving.connect(settings_of(tmp_path, "local"))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"FALAJ_MTLS": "yes"}, "FALAJ_MTLS is 'yes'; right would be off, local, or the absolute path of a folder"),
        ({"FALAJ_MTLS": "certs"}, "FALAJ_MTLS is 'certs'; right would be"),
        (
            {"FALAJ_MTLS": "local", "FALAJ_SERVE_URL": "http://rollout:8151"},
            "FALAJ_SERVE_URL is 'http://rollout:8151', and FALAJ_MTLS is local",
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence(monkeypatch, told, said):
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StateError) as refused:
        read_settings()
    assert said in str(refused.value)


def test_certificates_without_a_name_of_ours_name_nobody_we_know():
    until = "Nov 27 12:00:00 2026 GMT"

    def named(*names):
        return read_service({"subjectAltName": names, "notAfter": until})

    assert named(("URI", uri_of(PLATFORM))).name == PLATFORM
    for names in (
        (),
        (("DNS", "platform"),),
        (("URI", "spiffe://elsewhere/platform"),),
        (("URI", uri_of(PLATFORM)), ("URI", uri_of("guest"))),
    ):
        assert named(*names).name not in SERVICES
    assert read_service(None) is read_service({}) is None
