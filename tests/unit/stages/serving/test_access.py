"""Who may ask a server for what, where it has started before there was a key."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from platform_assets.errors import AccessError
from platform_assets.stages.serving.access import ADMIN, Gate, read_public_key
from resources.tokens import ensure_signing_key, mint


def bearer(keys: Path) -> bytes:
    ensure_signing_key(keys)
    return f"Bearer {mint(keys, scopes=[ADMIN])}".encode()


def test_a_key_that_is_made_after_the_server_has_started_is_found_with_the_next_token(tmp_path: Path) -> None:
    gate = Gate(partial(read_public_key, tmp_path / "keys"), tokens_required=True)
    with pytest.raises(AccessError, match="no public key, so no token is valid here; `falaj token` makes the key"):
        gate.admit(bearer(tmp_path / "others"), loopback=False, any_of=(ADMIN,))
    assert gate.admit(bearer(tmp_path / "keys"), loopback=False, any_of=(ADMIN,)) > 0
    with pytest.raises(AccessError):
        gate.admit(bearer(tmp_path / "others"), loopback=False, any_of=(ADMIN,))
