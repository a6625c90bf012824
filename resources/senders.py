"""Who may send events by webhook: the file that `FALAJ_SENDERS` names, and the secrets in the files that it names."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from platform_assets.errors import Fault, SettingsError, StateError
from platform_assets.identity.webhooks import read_secret
from platform_assets.specs.senders import SenderSpec, SendersSpec

if TYPE_CHECKING:
    from pathlib import Path


def read_senders(path: Path) -> dict[str, SenderSpec]:
    """Read the file and try each secret; SettingsError lists all that is wrong."""
    what = "the file of senders (FALAJ_SENDERS)"
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError([Fault(str(path), "", f"cannot be read ({error.strerror}); FALAJ_SENDERS names it")], what=what) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([Fault(str(path), "", f"is no TOML file: {error}")], what=what) from None
    try:
        senders = SendersSpec.model_validate(found).root
    except ValidationError as error:
        raise SettingsError([_fault(path, one) for one in error.errors()], what=what) from None
    faults = []
    for name, sender in senders.items():
        try:
            read_secrets(sender)
        except StateError as error:
            faults.append(Fault(str(path), f"{name}.secret_file", str(error)))
    if faults:
        raise SettingsError(faults, what=what)
    return senders


def read_secrets(sender: SenderSpec) -> list[bytes]:
    """Return a sender's secrets as they stand in its file now, so that they can be changed while it sends. StateError, never with one."""
    file = sender.secret_file
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"the secret in {file} cannot be read ({type(error).__name__})") from None
    if file.stat().st_mode & 0o077:
        raise StateError(f"{file} can be read by others; run: chmod 600 {file}")
    if not lines:
        raise StateError(f"{file} is empty; write a secret into it, with: echo whsec_$(openssl rand -base64 32)")
    try:
        return [read_secret(line) for line in lines]
    except ValueError as error:
        raise StateError(f"{file} holds a line that is no secret; {error}") from None


def _fault(path: Path, error: Any) -> Fault:
    field = ".".join(str(part) for part in error["loc"])
    said = {
        "missing": "is missing; a sender has secret_file and types",
        "extra_forbidden": "is no setting; a sender has secret_file and types",
        "path_not_file": f"there is no file {str(error['input'])!r}; name one that this user can read",
        "string_pattern_mismatch": "is no name; write small letters, digits and underscores, a letter first",
    }
    return Fault(str(path), field, said.get(error["type"]) or str(error["msg"]).removeprefix("Value error, "))
