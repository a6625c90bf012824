"""Certificates of services (FALAJ_MTLS): where they lie, when one is due, and what a client shows. What is signed is authority.py's.

`python -m resources.certificates KEYS` keeps a home's own ones fresh; whatever asks a server looks after them, too.

Each service has one file, `keys/services/NAME.pem`, key and certificate in one: a kill leaves the old pair or the new one. What is trusted,
`ca.pem`, takes a new authority an hour before that signs anything, so that nobody meets a certificate of one that it has not heard of.
"""

from __future__ import annotations

import ssl
import sys
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from platform_assets.errors import FalajError, ServingError, StateError
from platform_assets.identity.services import INFERENCE, PLATFORM, SERVICES
from platform_assets.logs import say
from platform_assets.stages.serving.tls import TlsFiles, end_of, load_pair
from resources.authority import LEAF_LIFE, Authority, issue, make_authority, read_authorities, write_authorities
from resources.home import locked, write_atomically

if TYPE_CHECKING:
    from resources.settings import Settings

OFF, LOCAL = "off", "local"
AUTHORITY_FILE, FOLDER, TRUSTED = "authority.pem", "services", "ca.pem"
_CERTIFICATE, _KEY, _AUTHORITIES = "tls.crt", "tls.key", "ca.crt"  # as cert-manager and Kubernetes call them
_RENEW_BEFORE = LEAF_LIFE / 3
_SUCCESSOR_BEFORE = timedelta(days=30)
_HEARD_OF_AFTER = timedelta(hours=1)
_LOOK_SECONDS = 60.0
HEARD_SECONDS = 3.0  # servers look once a second (stages/serving/tls.py)


def files_of(settings: Settings, name: str) -> TlsFiles | None:
    """Return a service's files, made or renewed where that is due; None where services show no certificates.

    StateError where files that others write are not there, or the authority of this home is lost.
    """
    if settings.mtls == OFF:
        return None
    if settings.mtls == LOCAL:
        ensure(settings.home.keys)
        folder = settings.home.keys / FOLDER
        return TlsFiles(folder / f"{name}.pem", folder / f"{name}.pem", folder / TRUSTED)
    folder = Path(settings.mtls)
    if missing := [file for file in (_CERTIFICATE, _KEY, _AUTHORITIES) if not (folder / file).is_file()]:
        raise StateError(
            f"FALAJ_MTLS is {settings.mtls!r}, where there is no {missing[0]}; right would be a folder with {_CERTIFICATE}, {_KEY} and "
            f"{_AUTHORITIES}, as cert-manager writes them, or {LOCAL}, or {OFF}"
        )
    return TlsFiles(folder / _CERTIFICATE, folder / _KEY, folder / _AUTHORITIES)


def client_context(settings: Settings) -> ssl.SSLContext | None:
    """Return what the platform shows and trusts as it lies there now; None where services show no certificates."""
    files = files_of(settings, PLATFORM)
    if files is None:
        return None
    try:
        context, end = _read_context(files, tuple(files.stamp()))
    except (OSError, ValueError) as error:
        raise ServingError(
            f"FALAJ_MTLS: {files.certificate.parent} holds no certificate, its key and authorities in PEM form ({error})"
        ) from error
    if end < time.time():
        at = datetime.fromtimestamp(end, UTC)
        raise ServingError(
            f"FALAJ_MTLS: the certificate {files.certificate} ended at {at:%Y-%m-%d %H:%M:%S} UTC; whoever writes it has to renew it"
        )
    return context


@lru_cache(maxsize=8)  # as long as the files are the same: making one costs half of a handshake
def _read_context(files: TlsFiles, _stamp: tuple[tuple[int, int, int], ...]) -> tuple[ssl.SSLContext, float]:
    context = ssl.create_default_context(cafile=files.services)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    load_pair(context, certificate=files.certificate, key=files.key)
    return context, end_of(files.certificate)


def check(settings: Settings) -> None:
    """See that files which others write are there; StateError where one is not. What this home writes is made when it is used."""
    if settings.mtls != LOCAL:
        files_of(settings, PLATFORM)


def server_options(settings: Settings) -> list[str]:
    """Return the inference server's options for certificates, none where there are none."""
    files = files_of(settings, INFERENCE)
    if files is None:
        return []
    return ["--tls-cert", str(files.certificate), "--tls-key", str(files.key), "--service-ca", str(files.services)]


def ensure(keys: Path) -> None:
    """Make and renew whatever is due; many may do so at once."""
    if _is_due(keys):
        with _alone(keys):
            _bring_up(keys)


def rotate(keys: Path, *, heard_seconds: float = HEARD_SECONDS) -> None:
    """Put a new authority in the place of all others: whatever they signed is refused from then on.

    Callers are turned away at no moment: both are trusted first, then the new one signs, then the others go, each once servers have had
    `heard_seconds` to look. A kill meanwhile leaves both trusted: another rotation ends it.
    """
    folder, file = keys / FOLDER, keys / AUTHORITY_FILE
    with _alone(keys):
        new = make_authority(datetime.now(UTC))
        try:
            both = [*read_authorities(file), new]
        except StateError:  # what it signed is known to nobody any more
            both = []
        if both:
            write_authorities(file, both)
            _trust(folder, both)
            time.sleep(heard_seconds)
            for name in SERVICES:
                _sign(folder, new, name)
            time.sleep(heard_seconds)
        write_authorities(file, [new])
        _bring_up(keys)


def keep(keys: Path) -> None:
    """Renew for as long as the process lives; what stands in the way is said and tried again."""
    said = ""
    while True:
        try:
            ensure(keys)
            said = ""
        except (FalajError, OSError) as error:
            if str(error) != said:
                said = str(error)
                say(said)
        time.sleep(_LOOK_SECONDS)  # short: a machine that slept wakes to certificates that ended


def _alone(keys: Path) -> AbstractContextManager[None]:
    (keys / FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
    return locked(keys / FOLDER)


def _is_due(keys: Path) -> bool:
    try:
        authorities = read_authorities(keys / AUTHORITY_FILE)
        return authorities != _with_successor(authorities) or not all(_is_fresh(keys, name, authorities) for name in SERVICES)
    except StateError:
        return True


def _bring_up(keys: Path) -> None:
    folder, file = keys / FOLDER, keys / AUTHORITY_FILE
    if file.exists():
        before = read_authorities(file)
    elif any(folder.glob("*.pem")):
        raise StateError(
            f"{file}, which signs the certificates under {folder}, is gone; restore it from a backup, or make another with "
            "`falaj keys rotate --services`"
        )
    else:
        before = []
    authorities = _with_successor(before)
    if authorities != before:
        write_authorities(file, authorities)
    _trust(folder, authorities)
    for name in SERVICES:
        if not _is_fresh(keys, name, authorities):
            _sign(folder, _signer(authorities), name)


def _trust(folder: Path, authorities: list[Authority]) -> None:
    trusted = b"".join(one.pem for one in authorities)
    if not (folder / TRUSTED).exists() or (folder / TRUSTED).read_bytes() != trusted:
        write_atomically(folder / TRUSTED, trusted)


def _sign(folder: Path, authority: Authority, name: str) -> None:
    write_atomically(folder / f"{name}.pem", issue(authority, name, now=datetime.now(UTC)), mode=0o600)


def _with_successor(authorities: list[Authority]) -> list[Authority]:
    """Return those that have not ended, and a new one where the newest will soon."""
    now = datetime.now(UTC)
    living = [one for one in authorities if one.until > now]
    return living if living and living[-1].until - now > _SUCCESSOR_BEFORE else [*living, make_authority(now)]


def _signer(authorities: list[Authority]) -> Authority:
    """Return the newest that everybody has heard of."""
    now = datetime.now(UTC)
    return next((one for one in reversed(authorities) if one.since + _HEARD_OF_AFTER <= now), authorities[0])


def _is_fresh(keys: Path, name: str, authorities: list[Authority]) -> bool:
    """Whether a service's certificate is of an authority that is trusted, and has a third of its life left; ca.pem must name them all."""
    folder = keys / FOLDER
    try:
        found = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
        told = (folder / TRUSTED).read_bytes()
    except (OSError, ValueError):
        return False
    lasts = found.not_valid_after_utc - datetime.now(UTC) > _RENEW_BEFORE
    return lasts and told == b"".join(one.pem for one in authorities) and any(one.signed(found) for one in authorities)


def main(arguments: list[str]) -> None:
    """Keep the certificates under this folder of keys."""
    keep(Path(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
