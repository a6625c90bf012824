"""The small certificate authority of one home: its keys in one file, and what it signs. When which certificate is due is certificates.py's.

Certificates are X.509 as RFC 5280 profiles it, EC P-256. The authority is constrained (4.2.1.10) to loopback, so that who steals
its key can pose as no other server to whoever trusts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from platform_assets.errors import StateError
from platform_assets.identity.services import INFERENCE, uri_of
from resources.home import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

LIFE, LEAF_LIFE = timedelta(days=365), timedelta(hours=24)
_SKEW = timedelta(minutes=5)  # clocks that are behind take it as well
_END_KEY = b"-----END PRIVATE KEY-----\n"


@dataclass(frozen=True)
class Authority:
    """A key that signs, and the certificate that says so."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def since(self) -> datetime:
        """When it was made."""
        return self.certificate.not_valid_before_utc + _SKEW

    @property
    def until(self) -> datetime:
        """When nothing that it signed holds any more."""
        return self.certificate.not_valid_after_utc

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    def signed(self, certificate: x509.Certificate) -> bool:
        """Whether a certificate is one of its own."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


def read_authorities(file: Path) -> list[Authority]:
    """Return what the file holds, oldest first; StateError where that is no authority."""
    try:
        parts = file.read_bytes().split(_END_KEY)
        keys = [load_pem_private_key(part[part.index(b"-----BEGIN PRIVATE") :] + _END_KEY, password=None) for part in parts[:-1]]
        certificates = [x509.load_pem_x509_certificate(part) for part in parts[1:]]
        if not keys:
            raise ValueError("it holds no key")  # noqa: TRY301 - said below, as all that is wrong with it
        return [_pair(key, certificate) for key, certificate in zip(keys, certificates, strict=True)]
    except (OSError, ValueError) as error:
        raise StateError(
            f"{file} is not the authority that signs certificates of services ({error}); restore it from a backup, or make another "
            "with `falaj keys rotate --services`"
        ) from error


def _pair(key: PrivateKeyTypes, certificate: x509.Certificate) -> Authority:
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError("a key is not its certificate's")
    return Authority(key, certificate)


def write_authorities(file: Path, authorities: list[Authority]) -> None:
    """Write all of them, mode 0600: a kill leaves those of before or these."""
    write_atomically(file, b"".join(_private(one.key) + one.pem for one in authorities), mode=0o600)


def make_authority(now: datetime) -> Authority:
    """Make a new one, which holds from now on."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Falaj services {now:%Y-%m-%d %H:%M:%S}")])
    # Not URIs as well: pyca's and other verifiers refuse authorities with a constraint of a kind that they do not know.
    permitted = [x509.DNSName("localhost"), x509.IPAddress(ip_network("127.0.0.0/8")), x509.IPAddress(ip_network("::1/128"))]
    made = (
        _begin(name, issuer=name, key=key.public_key(), since=now - _SKEW, until=now + LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), critical=True)
    )
    return Authority(key, made.sign(key, hashes.SHA256()))


def issue(authority: Authority, name: str, *, now: datetime) -> bytes:
    """Return a service's new key and its certificate in one piece of PEM: what is written whole belongs together."""
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri_of(name))]
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH
    if name == INFERENCE:
        names += [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1")), x509.IPAddress(IPv6Address("::1"))]
        purpose = ExtendedKeyUsageOID.SERVER_AUTH
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"falaj {name}")])  # a space: else it is taken for a host's name
    made = (
        _begin(
            subject, issuer=authority.certificate.subject, key=key.public_key(), since=now - _SKEW,
            until=min(now + LEAF_LIFE, authority.until),
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )  # fmt: skip
    return _private(key) + made.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _begin(
    subject: x509.Name, *, issuer: x509.Name, key: ec.EllipticCurvePublicKey, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    begun = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), since, until)
    return begun.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
