"""The one way to open a release at rest: signature, key, content, identity, in this order; whatever does not hold is a SealError.

A sealed release is a folder: `files/` with every file encrypted, `model.sig` with the signature over their plain contents, and
`envelope.json` with the wrapped data key of each. Rotating keys writes `envelope.json` anew and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from platform_assets.errors import ReleaseError, SealError, StateError
from platform_assets.manifests import ReleaseFiles, check_release, hash_files
from platform_assets.sealing.envelope import decrypt
from platform_assets.sealing.keyring import KEYRING_FILE, Keyring
from platform_assets.sealing.signature import PUBLIC_KEY_FILE, read_public_key, verify_signature

if TYPE_CHECKING:
    from pathlib import Path

FILES, SIGNATURE_FILE, ENVELOPE_FILE = "files", "model.sig", "envelope.json"
FORMAT = "falaj-envelope/1"


class Unwraps(Protocol):
    """What opening needs of a key service."""

    def unwrap(self, key_id: str, wrapped: bytes, *, context: bytes) -> bytes:
        """Return a data key."""


@dataclass(frozen=True)
class WrappedKey:
    """A file's data key under the key of this id."""

    key_id: str
    wrapped: bytes


class Opener:
    """Opens releases with the keys of one folder."""

    def __init__(self, keys: Unwraps, public_key: Path) -> None:
        self._keys, self._public_key = keys, public_key

    @staticmethod
    def of(keys_dir: Path) -> Opener:
        """Open with a laptop's key folder."""
        return Opener(Keyring(keys_dir / KEYRING_FILE), keys_dir / PUBLIC_KEY_FILE)

    def open(self, folder: Path, *, digest: str) -> ReleaseFiles:
        """Return the release of this digest, every byte verified; anything else that lies in its place is refused with the reason."""
        name = f"release {digest[:12]} in {folder}"
        try:
            return self._open_as_it_is_now(folder, digest)
        except SealError as error:
            raise SealError(f"{name} was refused: {error}", reason=error.reason) from error
        except StateError as error:
            raise SealError(f"{name} was refused: {error}", reason="key lost") from error
        except ReleaseError as error:  # signed, and all the same not whole
            raise SealError(f"{name} was refused: {error}", reason="incomplete") from error

    def _open_as_it_is_now(self, folder: Path, digest: str) -> ReleaseFiles:
        signed = verify_signature(_read(folder / SIGNATURE_FILE, reason="unsigned"), key=read_public_key(self._public_key))
        wrapped = read_envelope(folder)
        try:
            return self._open(folder, digest, signed=signed, wrapped=wrapped)
        except SealError as error:
            newer = read_envelope(folder)
            if error.reason != "key lost" or newer == wrapped:
                raise
            return self._open(folder, digest, signed=signed, wrapped=newer)  # keys were rotated meanwhile

    def _open(self, folder: Path, digest: str, *, signed: dict[str, str], wrapped: dict[str, WrappedKey]) -> ReleaseFiles:
        if set(signed) != set(wrapped):
            other = min(set(signed) ^ set(wrapped))
            raise SealError(f"{other!r} is not among both the signed and the encrypted files", reason="altered")
        files = {name: self._decrypt(folder, name, wrapped[name], digest=digest) for name in sorted(signed)}
        hashes = hash_files(files)
        if wrong := [name for name in signed if hashes[name] != signed[name]]:
            raise SealError(f"{wrong[0]} is not the file that was signed", reason="altered")
        release = check_release(files, hashes=hashes, where=folder)
        if release.digest != digest:
            raise SealError(f"it is another release, {release.version}, put into its place", reason="replayed")
        return release

    def _decrypt(self, folder: Path, name: str, key: WrappedKey, *, digest: str) -> bytes:
        context = context_of(digest, name)
        file = folder / FILES / name
        if not file.resolve().is_relative_to((folder / FILES).resolve()):
            raise SealError(f"{ENVELOPE_FILE} names {name!r}, which is outside the release", reason="altered")
        try:
            data_key = self._keys.unwrap(key.key_id, key.wrapped, context=context)
            with file.open("rb") as source:
                return decrypt(source, key=data_key, context=context)
        except OSError as error:
            raise SealError(f"{name} is missing or cannot be read: {error.strerror}", reason="altered") from error
        except SealError as error:
            raise SealError(f"{name}: {error}", reason=error.reason) from error


def context_of(digest: str, name: str) -> bytes:
    """What a file's key and segments are bound to: this file of this release."""
    return f"{FORMAT}\n{digest}\n{name}".encode()


def read_envelope(folder: Path) -> dict[str, WrappedKey]:
    """Return the wrapped data keys of a sealed release, by file."""
    content = _read(folder / ENVELOPE_FILE, reason="altered")
    try:
        found = json.loads(content)
        if found["format"] != FORMAT:
            raise SealError(f"{ENVELOPE_FILE} is of format {found['format']!r}; {FORMAT} is known here", reason="altered")
        return {
            name: WrappedKey(str(entry["key_id"]), base64.b64decode(entry["wrapped"], validate=True))
            for name, entry in found["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise SealError(f"{ENVELOPE_FILE} was altered: it is no envelope", reason="altered") from error


def write_envelope(wrapped: dict[str, WrappedKey]) -> bytes:
    """Content of an envelope file."""
    files = {name: {"key_id": key.key_id, "wrapped": base64.b64encode(key.wrapped).decode()} for name, key in sorted(wrapped.items())}
    return json.dumps({"format": FORMAT, "files": files}, indent=1).encode()


def _read(file: Path, *, reason: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        what = "it is not signed" if reason == "unsigned" else "it is not whole"
        raise SealError(f"{what}: {file.name} is missing or cannot be read ({error.strerror})", reason=reason) from error
