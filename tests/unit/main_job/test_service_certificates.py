"""`falaj keys rotate --services`: what was signed before goes, the audit log says so, and where nothing is signed here it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pipeline.tiny import TinyHome

from platform_assets.errors import StateError
from platform_assets.main_job import operations, site
from resources.authority import read_authorities
from resources.certificates import AUTHORITY_FILE


def test_a_rotation_makes_another_authority_and_is_audited(tmp_path):
    settings = replace(TinyHome(tmp_path / "home").settings, mtls="local")
    site.prepare(settings)
    (before,) = read_authorities(settings.home.keys / AUTHORITY_FILE)
    assert operations.rotate_services(settings)
    (after,) = read_authorities(settings.home.keys / AUTHORITY_FILE)
    assert after.certificate != before.certificate
    (entry,) = [one for one in operations.bind_parts(settings).audit.entries() if one["action"] == "service_certificates_rotated"]
    assert entry["actor"] == "falaj keys rotate --services"


@pytest.mark.parametrize("mtls", ["off", "/etc/falaj/service"])
def test_where_this_home_signs_nothing_there_is_nothing_to_rotate(tmp_path, mtls):
    with pytest.raises(StateError, match="this home signs no certificates of services; right would be local"):
        operations.rotate_services(replace(TinyHome(tmp_path / "home").settings, mtls=mtls))
