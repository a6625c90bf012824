"""What every key service promises."""

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from s3_process import own_prefix
from vault_double import run_vault

from platform_assets.errors import SealError, StateError
from platform_assets.sealing.envelope import make_data_key
from resources.keys import LaptopKeys
from resources.kms import KmsKeys
from resources.testing.keys import MemoryKeys
from resources.vault import VaultKeys


@pytest.fixture(params=["laptop", "memory", "kms", "vault"])
def keys(request, tmp_path):
    if request.param == "vault":
        with run_vault(tmp_path) as (_, place):
            yield VaultKeys(place)
    elif request.param == "kms":
        yield KmsKeys(own_prefix(request.getfixturevalue("s3_server")))
    else:
        yield LaptopKeys(tmp_path / "keys") if request.param == "laptop" else MemoryKeys()


def test_a_wrapped_key_is_unwrapped_and_its_bytes_do_not_hold_it(keys):
    data_key = make_data_key()
    key_id, wrapped = keys.wrap(data_key, context=b"one")
    assert keys.unwrap(key_id, wrapped, context=b"one") == data_key
    assert data_key not in wrapped
    assert keys.wrap(data_key, context=b"one")[1] != wrapped


def test_another_context_and_each_flipped_bit_is_refused(keys):
    key_id, wrapped = keys.wrap(make_data_key(), context=b"one")
    with pytest.raises(SealError, match="altered"):
        keys.unwrap(key_id, wrapped, context=b"two")
    for at in range(len(wrapped)):
        flipped = bytes([*wrapped[:at], wrapped[at] ^ 1, *wrapped[at + 1 :]])
        with pytest.raises(SealError, match="altered"):
            keys.unwrap(key_id, flipped, context=b"one")


def test_a_new_key_wraps_from_now_on_and_the_earlier_one_goes_on_unwrapping(keys):
    data_key = make_data_key()
    old, wrapped = keys.wrap(data_key, context=b"c")
    new = keys.add()
    assert (keys.current(), keys.ids()) == (new, [old, new])
    assert keys.wrap(data_key, context=b"c")[0] == new != old
    assert keys.unwrap(old, wrapped, context=b"c") == data_key


def test_what_is_wrapped_under_a_forgotten_key_is_lost_in_one_sentence_that_names_it(keys):
    old, wrapped = keys.wrap(make_data_key(), context=b"c")
    keys.add()
    keys.forget(old)
    with pytest.raises(SealError, match=f"under key {old}, which is not in") as refused:
        keys.unwrap(old, wrapped, context=b"c")
    assert refused.value.reason == "key lost"


def test_the_key_in_use_is_never_forgotten(keys):
    data_key = make_data_key()
    key_id, wrapped = keys.wrap(data_key, context=b"c")
    keys.forget(key_id)
    assert keys.unwrap(key_id, wrapped, context=b"c") == data_key


def test_the_key_file_is_for_its_owner_alone(tmp_path):
    LaptopKeys(tmp_path / "keys").wrap(make_data_key(), context=b"c")
    LaptopKeys(tmp_path / "keys").add()
    (file,) = (tmp_path / "keys").glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_first_users_at_once_agree_on_one_key(tmp_path):
    def wrap(_: int) -> str:
        return LaptopKeys(tmp_path / "keys").wrap(make_data_key(), context=b"c")[0]

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(wrap, range(32)))) == 1


def test_a_lost_or_spoilt_key_file_is_named(tmp_path):
    keys = LaptopKeys(tmp_path / "keys")
    key_id, wrapped = keys.wrap(make_data_key(), context=b"c")
    (file,) = (tmp_path / "keys").glob("*.json")
    file.write_text("{}")
    with pytest.raises(StateError, match="is no key file"):
        keys.unwrap(key_id, wrapped, context=b"c")
    file.unlink()
    with pytest.raises(SealError, match="there is no key file"):
        keys.unwrap(key_id, wrapped, context=b"c")
