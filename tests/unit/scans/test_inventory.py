"""Which packages there are: of pins, of bills, of images."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from platform_assets.errors import ScanError
from platform_assets.scans.inventory import Package, read_bill, read_image, read_pins, read_root

STATUS = """Package: libssl3
Status: install ok installed
Source: openssl (3.0.11-1~deb12u2)
Version: 3.0.11-1~deb12u2+b1

Package: gone
Status: deinstall ok config-files
Version: 1.0

Package: bash
Status: install ok installed
Version: 5.2.15-2+b2
"""
DEBIAN = {"etc/os-release": 'ID=debian\nVERSION_ID="12"\n', "var/lib/dpkg/status": STATUS}
PYTHON = {
    "opt/venv/lib/python3.11/site-packages/Holey_Pack-1.4.dist-info/METADATA": "Metadata-Version: 2.1\nName: Holey_Pack\nVersion: 1.4\n\nText\n"
}
INSTALLED = [
    Package("Debian:12", "bash", "5.2.15-2+b2"),
    Package("Debian:12", "openssl", "3.0.11-1~deb12u2"),
    Package("PyPI", "holey-pack", "1.4"),
]


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_trees_own_pins_are_read_whole(checkout):
    lines = {
        line for line in (checkout / "constraints.txt").read_text().lower().replace("_", "-").splitlines() if line[:1] not in ("", "#")
    }
    assert len(read_pins(checkout / "constraints.txt")) == len(lines) > 200


@pytest.mark.parametrize("line", ["torch", "torch>=2", "torch==2,<3", "git+https://x/y", "-r other.txt", "torch==2 || rm"])
def test_a_line_that_pins_nothing_is_refused(tmp_path, line):
    (tmp_path / "pins").write_text(f"# why\nnumpy==2.0  # because\n{line}\n")
    with pytest.raises(ScanError, match=r"pins:3: .* pins no version; right would be NAME==VERSION"):
        read_pins(tmp_path / "pins")


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_a_list_of_nothing_is_refused(tmp_path, text):
    (tmp_path / "pins").write_text(text)
    with pytest.raises(ScanError, match="nothing to audit"):
        read_pins(tmp_path / "pins")
    with pytest.raises(ScanError, match="cannot be read"):
        read_pins(tmp_path / "elsewhere")


def bill(*components: dict[str, object]) -> str:
    return json.dumps({"bomFormat": "CycloneDX", "components": list(components)})


def test_a_bills_libraries_are_read_also_within_others(tmp_path):
    inner = {
        "type": "library",
        "name": "openssl",
        "purl": "pkg:deb/debian/libssl3@3.0.11-1+b1?distro=debian-12.4&upstream=openssl%403.0.11-1",
    }
    outer = {"type": "library", "name": "Holey", "purl": "pkg:pypi/Holey_Pack@1.4", "components": [inner]}
    (tmp_path / "bill.json").write_text(bill({"type": "file", "name": "model.onnx"}, {"type": "data", "name": "rows"}, outer))
    assert read_bill(tmp_path / "bill.json") == [Package("Debian:12", "openssl", "3.0.11-1"), Package("PyPI", "holey-pack", "1.4")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no CycloneDX"), ("[]", "no CycloneDX"), ("{}", "no CycloneDX"), ('{"bomFormat": "SPDX", "components": []}', "no CycloneDX"),
        (bill({"name": "x"}), "no CycloneDX"), (bill(), "nothing to audit"), (bill({"type": "file", "name": "x"}), "nothing to audit"),
        (bill({"type": "library", "name": "x"}), "x has the package URL None"), (bill({"type": "library", "name": "x", "purl": "pkg:npm/x@1"}), "what can be"),
        (bill({"type": "library", "name": "x", "purl": "pkg:pypi/x"}), "what can be audited"), (bill({"type": "library", "name": "x", "purl": "x"}), "no Cyc"),
        (bill({"type": "library", "name": "x", "purl": "pkg:deb/debian/x@1"}), "names no release of Debian"),
    ],
)  # fmt: skip
def test_a_bill_that_says_nothing_or_what_cannot_be_audited_is_refused(tmp_path, text, message):
    (tmp_path / "bill.json").write_text(text)
    with pytest.raises(ScanError, match=message):
        read_bill(tmp_path / "bill.json")


@pytest.mark.parametrize("form", ["folder", "w", "w:gz"])
def test_what_is_installed_in_an_image_is_listed_by_source(tmp_path, form):
    root = lay(tmp_path / "root", {**DEBIAN, **PYTHON, "usr/share/doc/x/METADATA": "Name: no"})
    if form != "folder":
        with tarfile.open(tmp_path / "image.tar", form) as archive:
            archive.add(root, arcname=".")
        root = tmp_path / "image.tar"
    assert read_root(root) == INSTALLED


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"etc/passwd": "x"}, "nothing to audit"), ({"etc/os-release": "ID=debian\nVERSION_ID=12\n"}, "nothing to audit"),
        ({**PYTHON, "lib/apk/db/installed": "P:musl"}, "packages of apk"), ({"var/lib/dpkg/status": STATUS}, "os-release says ID=None"),
        ({**DEBIAN, "etc/os-release": 'ID=ubuntu\nVERSION_ID="24.04"\n'}, "os-release says ID=ubuntu"),
        ({"x/y-1.dist-info/METADATA": "Name: y\n"}, "names no package and version"),
    ],
)  # fmt: skip
def test_a_file_system_that_cannot_be_audited_is_refused(tmp_path, files, message):
    with pytest.raises(ScanError, match=message):
        read_root(lay(tmp_path, files))


def test_a_file_that_is_no_archive_and_an_image_that_is_not_there_are_refused(tmp_path, monkeypatch):
    (tmp_path / "image.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(ScanError, match="neither a folder nor a tar archive"):
        read_root(tmp_path / "image.tar")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ScanError, match="podman is not installed"):
        read_image("falaj:1")


def test_an_image_is_read_out_of_podman_and_nothing_of_it_is_left(tmp_path, monkeypatch):
    """With a stand-in that hands out an archive as podman does; `tests/unit/infra/test_image.py` runs the real one."""
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        archive.add(lay(tmp_path / "root", {**DEBIAN, **PYTHON}), arcname=".")
    script = f'#!/bin/sh\necho "$1" >> {tmp_path}/asked\ncase $1 in export) cat {tmp_path}/image.tar; exit $(cat {tmp_path}/rc);; esac\n'
    (tmp_path / "podman").write_text(script)
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "rc").write_text("0")
    assert read_image("falaj:1") == INSTALLED
    assert (tmp_path / "asked").read_text().split() == ["create", "export", "rm"]
    (tmp_path / "rc").write_text("125")
    with pytest.raises(ScanError, match="ended with 125"):
        read_image("falaj:1")
    assert (tmp_path / "asked").read_text().split()[-1] == "rm"
