"""A user's own network is known by its source, which is found without being imported."""

from __future__ import annotations

import sys

from platform_assets.components.own_network import digest_source


def test_another_source_is_another_digest_and_nothing_is_imported(tmp_path, monkeypatch):
    package = tmp_path / "falaj_own_hotels"
    (package / "deep").mkdir(parents=True)
    for folder in (package, package / "deep"):
        (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    file = package / "deep" / "networks.py"
    file.write_text("class Wide: width = 1")
    monkeypatch.syspath_prepend(tmp_path)
    first = digest_source("falaj_own_hotels.deep.networks:Wide")
    assert first == digest_source("falaj_own_hotels.deep.networks:Other")
    file.write_text("class Wide: width = 2")
    assert first is not None
    assert digest_source("falaj_own_hotels.deep.networks:Wide") not in {None, first}
    assert not [name for name in sys.modules if name.startswith("falaj_own_hotels")]


def test_no_path_and_no_file_have_no_digest(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "falaj_own_empty").mkdir()
    assert digest_source(None) is None
    assert digest_source("falaj_own_absent.networks:Wide") is None
    assert digest_source("falaj_own_empty.networks:Wide") is None
    assert digest_source("falaj_own_empty:Wide") is None
