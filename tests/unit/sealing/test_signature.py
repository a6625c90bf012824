"""Our verifier and OpenSSF's own agree on whose signature it is and what it covers."""

import base64
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_signing import signing, verifying

from platform_assets.errors import SealError, StateError
from platform_assets.manifests import hash_files
from platform_assets.sealing.signature import read_public_key, verify_signature
from resources.keys import ModelSigner

FILES = {"model.onnx": b"graph", "schema.json": b"{}", "deep/card.md": b"# card"}


def make_pair(folder, *, curve=None):
    folder.mkdir(parents=True, exist_ok=True)
    private = ec.generate_private_key(curve or ec.SECP256R1())
    (folder / "key.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "pub.pem").write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return folder / "key.pem", folder / "pub.pem"


def lay_out(folder):
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    root = tmp_path_factory.mktemp("signed")
    folder, signer = lay_out(root / "release"), ModelSigner(root / "keys")
    return folder, signer.sign(folder), signer.public_key


def openssf_accepts(folder, bundle, public, beside) -> bool:
    (beside / "model.sig").write_bytes(bundle)
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder, beside / "model.sig")
    except ValueError:
        return False
    return True


def test_openssfs_verifier_takes_our_signature_and_ours_names_the_same_files(signed, tmp_path):
    folder, bundle, public = signed
    assert openssf_accepts(folder, bundle, public, tmp_path)
    assert verify_signature(bundle, key=read_public_key(public)) == hash_files(FILES)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_signatures_of_openssfs_signer_hold_on_every_curve_it_knows(curve, tmp_path):
    private, public = make_pair(tmp_path / "keys", curve=curve)
    folder = lay_out(tmp_path / "release")
    signing.Config().use_elliptic_key_signer(private_key=private).sign(folder, tmp_path / "model.sig")
    assert verify_signature((tmp_path / "model.sig").read_bytes(), key=read_public_key(public)) == hash_files(FILES)


def test_both_refuse_another_key(signed, tmp_path):
    folder, bundle, _ = signed
    _, other = make_pair(tmp_path / "other")
    assert not openssf_accepts(folder, bundle, other, tmp_path)
    with pytest.raises(SealError, match="signed with another key") as refused:
        verify_signature(bundle, key=read_public_key(other))
    assert refused.value.reason == "foreign key"


def test_a_foreign_signature_that_names_our_key_is_refused(signed, tmp_path):
    folder, bundle, public = signed
    private, _ = make_pair(tmp_path / "other")
    signing.Config().use_elliptic_key_signer(private_key=private).sign(folder, tmp_path / "theirs.sig")
    forged = json.loads((tmp_path / "theirs.sig").read_bytes())
    forged["verificationMaterial"] = json.loads(bundle)["verificationMaterial"]
    content = json.dumps(forged).encode()
    with pytest.raises(InvalidSignature):  # which OpenSSF's own lets through from the library below
        openssf_accepts(folder, content, public, tmp_path)
    with pytest.raises(SealError, match="its signature does not hold"):
        verify_signature(content, key=read_public_key(public))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_flipped_byte_of_the_bundle_changes_nothing_that_is_believed(signed, data):
    _, bundle, public = signed
    flipped = bytearray(bundle)
    at = data.draw(st.integers(0, len(flipped) - 1))
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = verify_signature(bytes(flipped), key=read_public_key(public))
    except SealError:
        return
    assert found == hash_files(FILES)  # white space, or a field that nobody reads


@settings(max_examples=100)
@given(st.binary(max_size=64) | st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_what_is_no_bundle_is_refused_as_altered(signed, content):
    with pytest.raises(SealError, match="altered"):
        verify_signature(content, key=read_public_key(signed[2]))


def test_an_altered_statement_breaks_the_signature(signed):
    _, content, public = signed
    bundle = json.loads(content)
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload.replace(b"model.onnx", b"other.onnx")).decode()
    with pytest.raises(SealError, match="does not hold"):
        verify_signature(json.dumps(bundle).encode(), key=read_public_key(public))


def test_a_key_of_another_kind_is_named(tmp_path):
    (tmp_path / "pub.pem").write_text("no key")
    with pytest.raises(StateError, match="not a public key in PEM form"):
        read_public_key(tmp_path / "pub.pem")
    _, public = make_pair(tmp_path, curve=ec.SECP256K1())
    with pytest.raises(StateError, match="P-256, P-384 or P-521"):
        read_public_key(public)
