"""Handing an edge box's prediction log over through a folder: a share, a stick, whatever the link is. Both ends of it.

`<folder>/<device>/<model>/<segment>` is what a box brings; `<segment>.taken` with its SHA-256 is the home's receipt. A box removes a
segment only once it finds the receipt, so that a kill, a cut or a pulled stick at any moment leaves each row at one end at least; rows
that come twice are told by their prediction id.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from platform_assets.errors import ServingError
from platform_assets.stages.serving.prediction_log import closed_segments

DEVICE_FILE, TAKEN = "device", ".taken"
_DEVICE = re.compile(r"^[0-9a-f]{12}$")
_SEGMENT = re.compile(r"^\d{1,20}-\d{1,10}\.frames$")


@dataclass(frozen=True)
class HandedOver:
    """How many segments a box brought, and how many of those it brought before were taken and removed."""

    brought: int
    taken: int


@dataclass(frozen=True)
class Brought:
    """A segment that waits in the folder."""

    device: str
    file: Path

    @property
    def name(self) -> str:
        """Its name among the home's own: the writer's place is the device, which no worker has."""
        number = self.file.name.partition("-")[0]
        return f"{number}-{int(self.device, 16) + 1_000}.frames"


def device_of(state: Path) -> str:
    """Return the box's own name, twelve hex digits, drawn at first use."""
    file = state / DEVICE_FILE
    if not file.exists():
        write_whole(file, secrets.token_hex(6).encode())
    found = file.read_text().strip()
    if not _DEVICE.match(found):
        raise ServingError(f"{file} holds {found[:40]!r}; right would be 12 hex digits: move it away and a new name is drawn")
    return found


def hand_over(state: Path, *, model: str, folder: Path) -> HandedOver:
    """Bring every closed segment that is not in the folder yet; remove here what the home took. Safe beside the running server."""
    if not folder.is_dir():
        raise ServingError(f"{folder} is no folder: the link is not there; mount it, or name another one")
    if not state.is_dir():
        raise ServingError(f"{state} is no folder: nothing was served here yet; name the folder that `falaj-edge serve` keeps its state in")
    brought = taken = 0
    try:
        there = folder / device_of(state) / model
        there.mkdir(parents=True, exist_ok=True)
        segments = closed_segments(state / "serving" / "log" / model)
        for segment in segments:
            content, target = segment.read_bytes(), there / segment.name
            if _receipt(target) == _sha256(content):
                segment.unlink()
                taken += 1
            elif not target.exists() or target.read_bytes() != content:
                write_whole(target, content)
                brought += 1
        for receipt in sorted(there.glob(f"*{TAKEN}")):  # the copy first: one without its receipt would be taken again
            target = receipt.with_name(receipt.name.removesuffix(TAKEN))
            if not (state / "serving" / "log" / model / target.name).exists():
                target.unlink(missing_ok=True)
                receipt.unlink()
    except OSError as error:
        raise ServingError(
            f"{error.filename or folder}: {error.strerror}; the log stays on the box, and the next handover goes on from here"
        ) from error
    return HandedOver(brought, taken)


def waiting(folder: Path, *, model: str) -> Iterator[Brought]:
    """Yield the segments of a model that boxes brought and nobody took, by device and age."""
    for file in sorted(folder.glob(f"*/{model}/*.frames")):
        device = file.parent.parent.name
        if _DEVICE.match(device) and _SEGMENT.match(file.name) and _receipt(file) != _sha256(file.read_bytes()):
            yield Brought(device, file)


def leave_receipt(brought: Brought, content: bytes) -> None:
    """Tell the box that these bytes are safe at home."""
    write_whole(brought.file.with_name(brought.file.name + TAKEN), _sha256(content).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write beside, bring to the disk and rename: a reader, also after a loss of power, finds all of it or nothing."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _receipt(target: Path) -> str | None:
    file = target.with_name(target.name + TAKEN)
    return file.read_text(errors="replace").strip() if file.exists() else None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
