"""Containers as a cluster runs them: read-only, as the image's own user, without capabilities, within limits; and the base they stand on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

USER = 10001
CONFINED = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges")
CONTAINERS = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=8192:8192"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Podman:
    """podman with runc; its settings lie in a folder of the caller's."""

    def __init__(self, folder: Path) -> None:
        conf = folder / "containers.conf"
        conf.write_text(CONTAINERS)
        self._environment = {**os.environ, "CONTAINERS_CONF": str(conf)}

    def __call__(self, *arguments: str) -> str:
        made = self.ask("podman", *arguments)
        assert made.returncode == 0, f"podman {' '.join(arguments[:2])}: {made.stderr or made.stdout}"
        return made.stdout.strip()

    def ask(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run any command with these settings; it may fail."""
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)

    def start(self, command: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a command that somebody else ends."""
        return subprocess.Popen(command, env=self._environment, stdout=output, stderr=subprocess.STDOUT)

    def logs(self, name: str) -> str:
        said = self.ask("podman", "logs", name)
        return said.stdout + said.stderr

    @contextmanager
    def built(self, checkout: Path, kind: str) -> Iterator[str]:
        """An image of this checkout, removed in the end, or the one that FALAJ_IMAGE_KIND names; skips with the reason where none can be."""
        if named := os.environ.get(f"FALAJ_IMAGE_{kind.upper()}"):
            yield named
            return
        base = self._need_base()
        name = f"localhost/falaj/{kind}:test"
        built = self.ask("sh", checkout / "infra" / "docker" / "build.sh", kind, base, name)
        assert built.returncode == 0, built.stderr
        try:
            yield name
        finally:
            self.ask("podman", "rmi", "--force", name)

    def _need_base(self) -> str:
        folder = Path(os.environ.get("FALAJ_BASE", "/var/cache/falaj/base"))
        if not (folder / "usr" / "bin" / "python3").exists():
            pytest.skip(f"there is no base in {folder}: make it with infra/docker/base.sh, or name an image in FALAJ_IMAGE_KIND")
        recipe = folder / "etc" / "falaj-base"  # an image of a base that was made by another recipe is not taken for it
        base = f"localhost/falaj-base:{recipe.read_text().strip() if recipe.exists() else 'bookworm'}"
        if self.ask("podman", "image", "exists", base).returncode:
            made = self.ask("sh", "-c", f"tar -C {folder} -c . | podman import - {base}")
            assert made.returncode == 0, made.stderr
        tried = self.ask("podman", "run", "--rm", "--network=none", base, "true")
        if tried.returncode:
            pytest.skip(f"this machine runs no containers: {tried.stderr.strip().splitlines()[-1:]}")
        return base


def need_podman() -> None:
    """Skip where there is none, or where this user may not hand files to the images' user."""
    if shutil.which("podman") is None or os.getuid() != 0:
        pytest.skip("there is no podman, or nobody who may hand files to another user")


def hand_over(folder: Path) -> None:
    """Let the images' user read and write what lies there."""
    for path in [folder, *folder.rglob("*")]:
        shutil.chown(path, USER, USER)


def open_way(folder: Path) -> None:
    """Let the images' user come to a folder of pytest's, which are its owner's alone."""
    for one in (folder, *folder.parents[:2]):
        one.chmod(0o755)
