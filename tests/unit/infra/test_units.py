"""The edge's systemd units, as systemd itself reads them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

INSTALLED = "/opt/falaj-edge/current"


@pytest.fixture
def units(tmp_path: Path, checkout: Path) -> list[Path]:
    """Beside a program that may be executed; systemd looks for it."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine: install systemd")
    program = tmp_path / "bin" / "falaj-edge"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = [file for kind in ("service", "timer") for file in sorted((checkout / "infra" / "edge").glob(f"*.{kind}"))]
    assert len(found) == 3
    for file in found:
        text = file.read_text()
        assert text.count(INSTALLED) == text.count("ExecStart=")
        (tmp_path / file.name).write_text(text.replace(INSTALLED, str(tmp_path)))
    return [tmp_path / file.name for file in found]


def verify(units: list[Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False)


def test_systemd_takes_every_unit_without_a_word(units: list[Path]) -> None:
    done = verify(units)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_misspelt_setting_would_be_told(units: list[Path]) -> None:
    (service,) = [unit for unit in units if unit.name == "falaj-edge.service"]
    service.write_text(service.read_text().replace("MemoryMax=", "MemoryMaximum="))
    assert "MemoryMaximum" in verify(units).stderr
