"""Keys in Vault's transit engine, against a double of it: what is asked, with which rights, and each way in which it can go wrong."""

from dataclasses import replace

import pytest
from contracts.test_release_store import make_release
from throw_away_ca import Authority
from vault_double import new_token, run_vault

from platform_assets.errors import OutageError, SealError, SettingsError, StateError
from platform_assets.specs.team import TeamSpec, VaultSpec
from platform_assets.stages.serving.places import read_places
from platform_assets.stages.serving.vault import Transit
from platform_assets.stages.serving.worker import ServerConfig
from resources import places
from resources.home import write_atomically
from resources.keys import ModelSigner
from resources.releases import SealedReleases
from resources.team import read_team, vault_place
from resources.vault import VaultKeys

KEY = b"k" * 32


@pytest.fixture
def running(tmp_path):
    with run_vault(tmp_path) as (vault, place):
        yield vault, place


def test_the_inference_server_opens_with_a_token_that_can_do_nothing_but_unwrap(running, tmp_path):
    vault, place = running
    releases = SealedReleases(tmp_path / "releases", keys=VaultKeys(place), signer=ModelSigner(tmp_path / "keys"))
    digest = releases.put(make_release(tmp_path / "in"))
    served = replace(place, token_file=new_token(vault, tmp_path / "server-token", "server"))
    file = tmp_path / "team.toml"
    file.write_text(f'[redis]\nurl = "redis://127.0.0.1:1/0"\n[vault]\nurl = "{place.url}"\ntoken_file = "{served.token_file}"\n')
    opener = ServerConfig(serving=tmp_path / "serving", keys=tmp_path / "keys", team=read_places(file)).opener()
    assert opener.open(releases.path(digest), digest=digest).files == releases.open(digest).files
    for refused in (VaultKeys(served).ids, VaultKeys(served).add, lambda: VaultKeys(served).wrap(KEY, context=b"c")):
        with pytest.raises(StateError, match=r"permission denied; the token in .*server-token has run out, or lacks the policy"):
            refused()


def test_the_platforms_token_can_make_no_key_that_leaves_vault(running):
    _, place = running
    keys = VaultKeys(place)
    keys.add()
    for what, body in (
        ("keys/falaj/config", {"exportable": True}), ("keys/falaj/config", {"deletion_allowed": True}),
        ("keys/falaj", {"type": "aes256-gcm96", "exportable": True}), ("keys/another", {"type": "aes256-gcm96"}),
    ):  # fmt: skip
        with pytest.raises(StateError, match="permission denied"):
            keys.ask("POST", what, body)
    for method, what in (("GET", "export/encryption-key/falaj"), ("GET", "backup/falaj"), ("GET", "keys")):
        with pytest.raises(StateError, match="permission denied"):
            keys.ask(method, what)


def test_a_token_is_taken_anew_once_it_was_renewed(running):
    vault, place = running
    keys = VaultKeys(place)
    key_id, wrapped = keys.wrap(KEY, context=b"c")
    vault.tokens.clear()
    with pytest.raises(StateError, match=r"permission denied; invalid token; the token in .* has run out"):
        keys.unwrap(key_id, wrapped, context=b"c")
    new_token(vault, place.token_file, "platform")
    assert keys.unwrap(key_id, wrapped, context=b"c") == KEY


def test_a_release_is_read_through_rotations_and_versions_go_from_the_oldest_on(running, tmp_path):
    vault, place = running
    keys = VaultKeys(place)
    releases = SealedReleases(tmp_path / "releases", keys=keys, signer=ModelSigner(tmp_path / "keys"))
    digest = releases.put(make_release(tmp_path / "in"))
    forgotten = [releases.rotate().forgotten for _ in range(3)]
    assert forgotten == [(), ("falaj:v1",), ("falaj:v2",)]
    assert releases.open(digest).digest == digest
    assert sorted(vault.keys["falaj"].versions) == [3, 4]  # trimmed: not even an administrator has the others back
    keys.add()
    keys.forget("falaj:v4")  # 3 is before it
    assert keys.ids() == ["falaj:v3", "falaj:v4", "falaj:v5"]


def test_a_kill_between_the_two_requests_of_forgetting_loses_nothing_and_the_next_rotation_goes_on(running, monkeypatch):
    vault, place = running
    keys = VaultKeys(place)
    old, _ = keys.wrap(KEY, context=b"c")
    keys.add()
    key_id, wrapped = keys.wrap(KEY, context=b"c")
    ask = VaultKeys.ask

    def killed(self, method, what, body=None):
        if what.endswith("trim"):
            raise KeyboardInterrupt
        return ask(self, method, what, body)

    with monkeypatch.context() as patch:
        patch.setattr(VaultKeys, "ask", killed)
        with pytest.raises(KeyboardInterrupt):
            keys.forget(old)
    assert keys.ids() == [key_id]
    assert keys.unwrap(key_id, wrapped, context=b"c") == KEY
    keys.add()
    keys.forget(key_id)
    assert sorted(vault.keys["falaj"].versions) == [3]


@pytest.mark.parametrize(
    ("what", "said"),
    [("sealed", "said: Vault is sealed"), ("limited", "said: request path: rate limit quota exceeded")],
)
def test_a_vault_that_is_sealed_or_asked_too_often_is_an_outage(running, what, said):
    vault, place = running
    setattr(vault, what, True)
    with pytest.raises(OutageError, match=rf"^Vault at {place.url} was asked for transit/keys/falaj and {said}$"):
        VaultKeys(place).ids()


def test_nobody_there_and_a_token_that_is_not_there_are_told(running, tmp_path):
    _, place = running
    with pytest.raises(OutageError, match=r"http://127\.0\.0\.1:1 did not answer, 3 times: .*refused"):
        VaultKeys(replace(place, url="http://127.0.0.1:1")).ids()
    with pytest.raises(StateError, match=rf"the token of Vault at .* cannot be read from {tmp_path}/absent"):
        VaultKeys(replace(place, token_file=tmp_path / "absent")).ids()


@pytest.mark.parametrize("key_id", ["other:v1", "falaj:v9", "falaj", "falaj:v", "0a1b2c3d"])
def test_what_was_wrapped_elsewhere_is_lost_in_one_sentence(running, key_id):
    _, place = running
    keys = VaultKeys(place)
    _, wrapped = keys.wrap(KEY, context=b"c")
    with pytest.raises(SealError, match=f"under key {key_id}, which is not in Vault at") as refused:
        keys.unwrap(key_id, wrapped, context=b"c")
    assert refused.value.reason == "key lost"


def test_a_server_that_is_not_the_named_one_is_not_told_the_token(tmp_path):
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    with run_vault(tmp_path, tls=(*authority.issue("vault"), authority.certificate)) as (vault, place):
        assert VaultKeys(place).add() == "falaj:v1"
        asked = len(vault.requests)
        for wrong in (replace(place, ca=other.certificate), replace(place, url=place.url.replace("127.0.0.1", "localhost"))):
            with pytest.raises(StateError, match=r"https://.* was not trusted: .*; `ca` names whose certificates are"):
                Transit(wrong).unwrap("falaj:v1", b"x", context=b"c")
        assert len(vault.requests) == asked


def test_a_vault_that_binds_wrapped_keys_to_nothing_is_refused_at_start(running):
    vault, place = running
    VaultKeys(place).probe()
    vault.binds = False
    with pytest.raises(
        StateError, match=r"passes over associated_data, so that keys could be exchanged; this platform needs 1\.13 or newer"
    ):
        VaultKeys(place).probe()


def settings_file(folder, place, **more):
    keys = {"url": place.url, "token_file": place.token_file, **more}
    folder.mkdir(exist_ok=True)
    write_atomically(
        folder / "team.toml",
        (
            '[postgresql]\nurl = "postgresql://falaj@127.0.0.1:1/falaj"\n[redis]\nurl = "redis://127.0.0.1:1/0"\n[vault]\n'
            + "\n".join(f'{name} = "{value}"' for name, value in keys.items())
        ).encode(),
    )
    return folder / "team.toml"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("url", "https://vault.example:8200", "vault.example, which is not on loopback, without ca"),
        ("url", "https://127.0.0.1:8200/v1", "has a path; right would be https://HOST:PORT"),
        ("url", "vault", "is no address of this kind; right would be https://HOST:PORT"),
        ("token_file", "/nowhere", "there is no file '/nowhere'"),
        ("key", "../sys/seal", "should match pattern"),
        ("mount", "../sys", "should match pattern"),
        ("token", "hvs", "is no setting"),
    ],
)
def test_each_wrong_setting_is_told_in_one_sentence(running, tmp_path, key, value, said):
    with pytest.raises(SettingsError) as refused:
        read_team(settings_file(tmp_path / "settings", running[1], **{key: value}))
    (told,) = [fault.message for fault in refused.value.faults if fault.field.startswith("vault")]
    assert said in told


def test_keys_are_wrapped_by_one_service_and_its_law_is_the_law_of_what_they_open(running, tmp_path):
    _, place = running
    good = {"postgresql": {"url": "postgresql://falaj@127.0.0.1:1/falaj"}, "redis": {"url": "redis://127.0.0.1:1/0"}}
    store = {"url": "s3://falaj/team", "endpoint": "http://127.0.0.1:1", "kms": "http://127.0.0.1:1", "credentials": place.token_file}
    vault = {"url": place.url, "token_file": place.token_file}
    with pytest.raises(ValueError, match=r"both store\.kms and \[vault\] are named, and keys are wrapped by one service"):
        TeamSpec.model_validate({**good, "store": store, "vault": vault})
    away = VaultSpec(url="https://vault.example:8200", token_file=place.token_file, ca=place.token_file, jurisdiction="FR")
    team = TeamSpec.model_validate({**good, "vault": vault}).model_copy(update={"vault": away})
    found = [one for one in places.read_places("AE", named={}, team=team, file=tmp_path / "team.toml") if one.jurisdiction == "FR"]
    assert {(one.part, one.where) for one in found} == {("tables", "vault at vault.example"), ("releases", "vault at vault.example")}
    assert vault_place(away).ca == place.token_file
