"""Data stays where it may be: the same function says so when declarations load and when a run asks to start."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from platform_assets import keys
from platform_assets.components.tree import load_tree
from platform_assets.errors import SpecError
from platform_assets.specs.catalogue import Catalogue, load_catalogue, read_catalogue
from platform_assets.stages.governance.residency import check_residency, find_breaches

SHIPPED = Path(__file__).resolve().parents[4] / "platform_assets" / "defs"
MODEL = "hotel_cancellations"


def shipped() -> Catalogue:
    return load_catalogue(SHIPPED)


def with_profile_abroad(catalogue: Catalogue, *, training: str | None = None, larger: str | None = None) -> Catalogue:
    """The shipped catalogue with a profile `abroad` in DE, taken by the model's training, or as a profile's larger one."""
    compute = catalogue.compute
    profiles = dict(compute.profiles)
    profiles["abroad"] = profiles["cpu-highmem"].model_copy(update={"jurisdiction": "DE"})
    if larger:
        profiles[larger] = profiles[larger].model_copy(update={"larger": "abroad"})
    models = dict(catalogue.models)
    if training:
        spec = models[MODEL]
        models[MODEL] = spec.model_copy(update={"training": spec.training.model_copy(update={"compute": training})})
    return Catalogue(catalogue.datasets, models, catalogue.files, compute.model_copy(update={"profiles": profiles}))


def test_the_shipped_declarations_stay_where_they_may_be() -> None:
    assert list(check_residency(shipped())) == []


def test_a_breach_is_said_with_the_whole_path_and_with_what_would_be_right() -> None:
    catalogue = with_profile_abroad(shipped(), training="abroad")
    (breach,) = find_breaches(catalogue, [keys.model_key(MODEL, "training_set"), keys.model_key(MODEL, "trained")])
    assert breach.path == (
        "dataset/hotel_bookings_simulated/ingested",
        "dataset/hotel_bookings_simulated/validated",
        "dataset/hotel_bookings_simulated/protected",
        f"model/{MODEL}/training_set",
        f"model/{MODEL}/trained",
    )
    assert " -> ".join(breach.path) in breach.sentence
    assert (
        "would run on profile 'abroad' in DE, and dataset 'hotel_bookings_simulated' may only be in AE; name one of cpu-" in breach.sentence
    )
    assert "abroad" not in breach.fitting


def test_admission_may_ask_about_another_profile_than_the_declared_one() -> None:
    catalogue = with_profile_abroad(shipped())
    asked = [keys.dataset_key("digits", "quarantined"), keys.features_key("digits", "image"), ["report", "of", "somebody"], ["lonely"]]
    assert find_breaches(catalogue, asked) == []
    breaches = find_breaches(catalogue, asked, profile_of=lambda _: ("abroad", catalogue.compute.profiles["abroad"]))
    assert [breach.path[1:] for breach in breaches] == [
        ("dataset/digits/validated", "dataset/digits/quarantined"),
        ("dataset/digits/validated", "dataset/digits/protected", "features/digits/image"),
    ]


def test_a_retry_on_a_larger_profile_may_not_leave_the_country_either() -> None:
    faults = list(check_residency(with_profile_abroad(shipped(), training="cpu-small", larger="cpu-large")))
    assert {(fault.file, fault.field) for fault in faults} == {
        ("defs/models/hotel_cancellations/defs.yaml", "training.compute"),
        ("defs/models/hotel_cancellations/defs.yaml", "compression.compute"),
        ("defs/models/digits/defs.yaml", "training.compute"),
        ("defs/models/digits/defs.yaml", "compression.compute"),
    }


def write_tree(root: Path, *, jurisdiction: str, training: str, more: str = "") -> Path:
    for folder in ("datasets/hotel_bookings", "datasets/hotel_bookings_simulated", f"models/{MODEL}"):
        document = yaml.safe_load((SHIPPED / folder / "defs.yaml").read_text())
        if folder.startswith("models"):
            document["attributes"]["training"].update(compute=training)
        (root / folder).mkdir(parents=True)
        (root / folder / "defs.yaml").write_text(yaml.safe_dump(document))
    (root / "compute").mkdir()
    (root / "compute" / "defs.yaml").write_text(
        "type: platform_assets.components.compute.Compute\n"
        "attributes:\n"
        "  default: here\n"
        "  profiles:\n"
        "    here: {cpu: 2, memory: 4Gi, price_aed_per_hour: 1}\n"
        f"    abroad: {{cpu: 2, memory: 4Gi, price_aed_per_hour: 1, jurisdiction: {jurisdiction}{more}}}\n"
    )
    return root


def test_at_load_breaches_stand_beside_all_other_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FALAJ_HOME", str(tmp_path / "home"))
    root = write_tree(tmp_path / "defs", jurisdiction="DE", training="abroad", more=", larger: nowhere")
    with pytest.raises(SpecError) as caught:
        load_tree(root)
    faults = [str(fault) for fault in caught.value.faults]
    assert len(faults) == 2, faults
    assert "profiles.abroad.larger: no profile 'nowhere'; declared: abroad, here" in faults[0]
    assert faults[1].startswith(f"defs/models/{MODEL}/defs.yaml: training.compute: dataset/hotel_bookings_simulated/ingested -> ")


@pytest.mark.parametrize("fault", ["cpu: 2, cpu: 2", "cpu: many"])
def test_profiles_that_cannot_be_read_make_no_breaches_of_their_own(tmp_path: Path, fault: str) -> None:
    root = write_tree(tmp_path / "defs", jurisdiction="DE", training="abroad")
    file = root / "compute" / "defs.yaml"
    file.write_text(file.read_text().replace("abroad: {cpu: 2", f"abroad: {{{fault}"))
    catalogue, faults = read_catalogue(root)
    assert len(faults) == 1, faults
    assert list(check_residency(catalogue)) == []


def test_a_dataset_that_may_not_be_on_the_default_profile_is_one_fault(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "defs", jurisdiction="AE", training="here")
    text = (root / "compute" / "defs.yaml").read_text().replace("here: {cpu: 2,", "here: {jurisdiction: DE, cpu: 2,")
    (root / "compute" / "defs.yaml").write_text(text.replace("default: here", "default: abroad"))
    faults = list(check_residency(load_catalogue(root)))
    assert [fault.field for fault in faults] == ["training.compute"], "the default is in AE, the training would leave"
    (root / "compute" / "defs.yaml").write_text(text)
    fields = [(fault.file, fault.field) for fault in check_residency(load_catalogue(root))]
    assert fields == [
        ("defs/datasets/hotel_bookings/defs.yaml", "residency"),
        ("defs/datasets/hotel_bookings_simulated/defs.yaml", "residency"),
        (f"defs/models/{MODEL}/defs.yaml", "training.compute"),
    ]


def test_only_a_declared_basis_that_holds_on_the_day_lets_data_cross_the_border() -> None:
    from datetime import date

    from platform_assets.specs.dataset import Transfer

    catalogue = with_profile_abroad(shipped(), training="abroad")
    trained = [keys.model_key(MODEL, "trained")]
    name = catalogue.models[MODEL].dataset
    basis = Transfer(to="DE", basis="standard clauses, contract 17/2025", since=date(2025, 1, 1), until=date(2025, 12, 31))
    datasets = {**catalogue.datasets, name: catalogue.datasets[name].model_copy(update={"transfers": (basis,)})}
    allowed = Catalogue(datasets, catalogue.models, catalogue.files, catalogue.compute)
    assert find_breaches(allowed, trained, on=date(2025, 1, 1)) == find_breaches(allowed, trained, on=date(2025, 12, 31)) == []
    (late,) = find_breaches(allowed, trained, on=date(2026, 1, 1))
    assert "a transfer to DE is declared from 2025-01-01 to 2025-12-31" in late.sentence
    assert "or a transfer with its dated legal basis" in late.sentence
    assert len(find_breaches(allowed, trained, on=date(2024, 12, 31))) == 1
    other = basis.model_copy(update={"to": "FR"})
    elsewhere = {**datasets, name: datasets[name].model_copy(update={"transfers": (other,)})}
    assert len(find_breaches(Catalogue(elsewhere, catalogue.models, catalogue.files, catalogue.compute), trained, on=date(2025, 6, 1))) == 1
    with pytest.raises(ValueError, match="is before since"):
        Transfer(to="DE", basis="standard clauses", since=date(2025, 1, 2), until=date(2025, 1, 1))
