"""Every part stands somewhere by declaration: on this machine, or under a law that somebody named."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from platform_assets import cli
from platform_assets.errors import ResidencyError, StateError
from platform_assets.keys import dataset_key, model_key
from platform_assets.specs.catalogue import load_catalogue
from platform_assets.specs.places import Part, Place
from platform_assets.specs.team import TeamSpec
from resources.border import Border
from resources.places import NAMED, read_places
from resources.settings import CHECKOUT
from resources.testing.state import MemoryAuditLog

TEAM = {"postgresql": {"url": "postgresql://falaj@127.0.0.1:1/falaj"}, "redis": {"url": "redis://127.0.0.1:1/0"}}


def laws(told: str, *, team: TeamSpec | None = None, **named: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for place in read_places(told, named=named, team=team, file=Path("team.toml")):
        found.setdefault(place.part, set()).add(place.jurisdiction)
    return found


def test_embedded_parts_stand_where_the_host_is_declared_to_be() -> None:
    assert laws("OM") == {part: {"OM"} for part in get_args(Part) if part != "edge box"}


def test_a_server_that_a_variable_names_stands_where_it_is_said_to() -> None:
    found = laws("AE, FALAJ_EVENTS=DE,FALAJ_SERVE_URL=OM", FALAJ_EVENTS="rediss://q.example:1/0", FALAJ_SERVE_URL="https://rollout:8151")
    assert found["events"] == {"DE"}
    assert found["inference server"] == {"OM"}
    assert found["production log"] == {"AE", "OM"}  # the folder is this home's, the server writes it
    assert found["tables"] == {"AE"}


@pytest.mark.parametrize("address", ["redis://127.0.0.1:6379/0", "redis://localhost/0", "unix:///run/redis.sock", "redis://[::1]:1/0"])
def test_a_server_on_this_machine_stands_where_the_machine_does(address: str) -> None:
    assert laws("SA", FALAJ_EVENTS=address)["events"] == {"SA"}
    assert laws("SA, FALAJ_EVENTS=AE", FALAJ_EVENTS=address)["events"] == {"AE"}  # a tunnel: whoever dug it may say so


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("FALAJ_EVENTS", "redis://q.example:6379/0"),
        ("FALAJ_LEASES", "postgresql://falaj@db.example/x"),
        ("FALAJ_LEDGER", "postgresql://falaj@db.example/x"),
        ("FALAJ_SERVE_URL", "https://rollout:8151"),
        ("FALAJ_WEBHOOK_URL", "https://chat.example/hook"),
        ("FALAJ_SMTP_HOST", "mail.example:587"),
    ],
)
def test_a_server_elsewhere_that_nothing_is_said_of_is_told_with_what_would_be_right(variable: str, address: str) -> None:
    assert variable in NAMED
    with pytest.raises(StateError, match=rf"{variable} names .*which is not on loopback.*right would be .*'AE, {variable}=AE'") as told:
        laws("AE", **{variable: address})
    assert "\n" not in str(told.value)
    assert laws(f"AE, {variable}=AE", **{variable: address})


@pytest.mark.parametrize("told", ["", "UAE", "ae", "AE, DE", "AE, FALAJ_HOME=DE", "AE, FALAJ_EVENTS", "AE, FALAJ_EVENTS=Germany", "AE,,"])
def test_jurisdictions_that_cannot_be_read_are_told(told: str) -> None:
    with pytest.raises(StateError, match=r"FALAJ_JURISDICTIONS=.*right would be for example"):
        laws(told)


def test_a_teams_servers_stand_where_its_file_says_and_this_machine_keeps_what_it_keeps() -> None:
    tables = {**TEAM, "redis": {**TEAM["redis"], "jurisdiction": "DE"}}
    tables["store"] = {"url": "s3://a/b", "endpoint": "http://127.0.0.1:1", "credentials": str(CHECKOUT / "LICENSE"), "jurisdiction": "SA"}
    found = laws("AE", team=TeamSpec.model_validate(tables))
    assert (found["events"], found["tables"], found["artefacts"]) == ({"DE"}, {"SA"}, {"AE", "SA"})
    assert (found["audit log"], found["online values"], found["releases"]) == ({"AE"}, {"DE"}, {"AE", "SA"})
    over = laws("AE, FALAJ_EVENTS=OM", team=TeamSpec.model_validate(tables), FALAJ_EVENTS="redis://other.example/0")
    assert over["events"] == {"OM"}


def test_what_is_placed_is_looked_at_once_more_and_a_refusal_is_audited() -> None:
    audit = MemoryAuditLog()
    catalogue = load_catalogue(CHECKOUT / "platform_assets" / "defs")
    at_home = [Place("tables", "home", "AE", "x"), Place("inference server", "far", "DE", "x")]
    border = Border(catalogue, at_home, lambda: audit)
    border.hold(dataset_key("digits", "ingested"), actor="run/1")
    border.hold(model_key("digits", "release"), actor="run/1")
    assert audit.entries() == []
    with pytest.raises(ResidencyError, match=r"model/digits/deployed -> inference server \(far\) would be in DE"):
        border.hold(model_key("digits", "deployed"), actor="run/1")
    (entry,) = audit.entries()
    assert (entry["action"], entry["subject"], entry["actor"]) == ("placement_refused", "model/digits", "run/1")
    assert entry["detail"]["path"][-2:] == ["model/digits/deployed", "inference server (far)"]
    assert entry["detail"]["jurisdiction"] == "DE"


def test_the_command_says_in_one_sentence_what_is_not_declared(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("FALAJ_WEBHOOK_URL", "https://chat.example/hook")
    monkeypatch.setattr("sys.argv", ["falaj", "check"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "FALAJ_WEBHOOK_URL names chat.example" in capsys.readouterr().err.replace("\n", " ")
