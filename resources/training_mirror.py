"""Trainings under way, kept in an S3-compatible store beside this machine's folder, so that they go on elsewhere when it is lost.

`trainings/KEY/` holds, as they lie in the folder: whole checkpoints (`out/state/`: the bytes are written before the header that vouches for
them, and removed after it), how each start was made and ended (`attempts/*/attempt.json`, `exit.json`), and what the trainer said, in
pieces named by their place in the file (`attempts/*/messages/OFFSET`). A kill leaves no checkpoint that has a header and not its bytes.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.errors import StateError
from platform_assets.networks.private.journal import JOURNAL_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resources.s3 import S3

_PLACE, _STATE, _MESSAGES = "trainings", "out/state", "messages.jsonl"
_RECORDS = ("attempt.json", "exit.json")
_LOG = logging.getLogger(__name__)


class NoMirror:
    """On a laptop the folder is all there is."""

    def bring(self, root: Path) -> bool:
        """Bring nothing."""
        del root
        return False

    def keep(self, root: Path) -> None:
        """Keep nothing."""

    def drop(self, name: str) -> None:
        """Drop nothing."""

    def sweep(self, *, older_than_seconds: float) -> list[str]:
        """Find nothing."""
        del older_than_seconds
        return []


class S3TrainingMirror:
    """The folder is what counts while it is there; the store is for when it is not."""

    def __init__(self, store: S3) -> None:
        self._store = store
        self._kept: dict[str, str] = {}  # object to what was last written there
        self._said: dict[str, int] = {}  # messages file to how far it is kept
        self._seen: set[str] = set()
        self._told = ""

    def bring(self, root: Path) -> bool:
        """Lay down what is kept of a training whose folder is not here, whole or not at all; False where nothing is."""
        kept = {} if root.exists() else self._store.sizes(f"{_PLACE}/{root.name}")
        if not kept:
            return False
        arriving = root.with_name(f".{root.name}.{uuid.uuid4().hex[:8]}")
        try:
            self._download(root.name, kept, arriving)
            if not arriving.is_dir():
                return False
            arriving.rename(root)
        finally:
            shutil.rmtree(arriving, ignore_errors=True)
        return True

    def keep(self, root: Path) -> None:
        """Bring the store up to date with a folder. A store that does not answer is told once, and tried again the next time."""
        try:
            self._keep_records(root)
            self._keep_messages(root)
            self._keep_checkpoints(root)
            self._told = ""
        except StateError as error:
            if self._told != str(error):
                self._told = str(error)
                _LOG.warning("Checkpoints and messages of %s are kept on this machine alone for now: %s", root.name, error)

    def drop(self, name: str) -> None:
        """Remove what is kept of a training; headers of checkpoints first."""
        self._remove(name, self._store.sizes(f"{_PLACE}/{name}"))
        self._said = {path: said for path, said in self._said.items() if Path(path).parents[2].name != name}

    def sweep(self, *, older_than_seconds: float) -> list[str]:
        """Remove trainings that came to nothing and of which nothing was written for so long; return their names."""
        newest: dict[str, float] = {}
        for name, written in self._store.times(_PLACE).items():
            key = name.partition("/")[0]
            newest[key] = max(written, newest.get(key, 0.0))
        gone = sorted(key for key, written in newest.items() if time.time() - written > older_than_seconds)
        for key in gone:
            self.drop(key)
        return gone

    def _keep_records(self, root: Path) -> None:
        for path in sorted(root.glob("attempts/*/*.json")):
            if path.name in _RECORDS:
                self._write(root, str(path.relative_to(root)), path)

    def _keep_messages(self, root: Path) -> None:
        for path in sorted(root.glob(f"attempts/*/{_MESSAGES}")):
            folder = str(path.parent.relative_to(root))
            known = self._said.get(str(path))
            if known is None:
                known = _reach(self._store.sizes(f"{_PLACE}/{root.name}/{folder}/messages"))
            with path.open("rb") as file:
                file.seek(known)
                whole, newline, _ = file.read().rpartition(b"\n")
            if newline:
                self._store.write(f"{_PLACE}/{root.name}/{folder}/messages/{known:012d}", whole + newline)
                known += len(whole) + 1
            self._said[str(path)] = known

    def _keep_checkpoints(self, root: Path) -> None:
        if (root / _STATE / JOURNAL_FILE).exists():
            return  # a private training: steps taken here after the last look would be counted nowhere, so another machine begins anew
        headers = {path.name: path for path in (root / _STATE).glob("step-*.json")}
        base = f"{_PLACE}/{root.name}/{_STATE}"
        if base not in self._seen:  # what an earlier process kept of it
            for name in self._store.sizes(base):
                held = self._store.read(f"{base}/{name}") if name.endswith(".json") else b""
                self._kept[f"{base}/{name}"] = hashlib.sha256(held or b"").hexdigest()
            self._seen.add(base)
        for name in sorted(headers, reverse=True):
            self._keep_checkpoint(root, name)
        known = [key.removeprefix(f"{base}/") for key in self._kept if key.startswith(f"{base}/")]
        if headers and (old := [name for name in known if name.replace(".pt", ".json") not in headers]):
            self._remove(f"{root.name}/{_STATE}", old)

    def _keep_checkpoint(self, root: Path, name: str) -> None:
        header, data = root / _STATE / name, root / _STATE / name.replace(".json", ".pt")
        place = f"{_PLACE}/{root.name}/{_STATE}"
        try:
            vouched = header.read_bytes()
            mark = hashlib.sha256(vouched).hexdigest()
            if self._kept.get(f"{place}/{name}") == mark:
                return
            self._store.remove(f"{place}/{name}")  # of the same step, written before a fall back: never beside other bytes
            with self._store.reached():
                self._store.client.upload_file(str(data), self._store.bucket, self._store.key(f"{place}/{data.name}"))
            if header.read_bytes() != vouched:
                return  # replaced meanwhile: what was sent is of two files; the next look sends the new one
        except FileNotFoundError:
            return  # the trainer let go of it meanwhile
        self._store.write(f"{place}/{name}", vouched)
        self._kept |= {f"{place}/{name}": mark, f"{place}/{data.name}": mark}

    def _write(self, root: Path, name: str, path: Path) -> None:
        content = path.read_bytes()
        mark, key = hashlib.sha256(content).hexdigest(), f"{_PLACE}/{root.name}/{name}"
        if self._kept.get(key) != mark:
            self._store.write(key, content)
            self._kept[key] = mark

    def _remove(self, place: str, names: Iterable[str]) -> None:
        for name in sorted(names, key=lambda one: not one.endswith(".json")):
            self._store.remove(f"{_PLACE}/{place}/{name}")
            self._kept.pop(f"{_PLACE}/{place}/{name}", None)

    def _download(self, key: str, kept: dict[str, int], target: Path) -> None:
        whole = {name for name in kept if not name.startswith(f"{_STATE}/")}
        for name in kept:  # a checkpoint counts where its header is there and its bytes too
            if name.startswith(f"{_STATE}/") and {name.replace(".pt", ".json"), name.replace(".json", ".pt")} <= set(kept):
                whole.add(name)
        for name in sorted(name for name in whole if "/messages/" not in name):
            if ".." in name.split("/"):
                raise StateError(f"training {key} in {self._store.url} names a file outside of itself: {name!r}; remove it there")
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with self._store.reached():
                self._store.client.download_file(self._store.bucket, self._store.key(f"{_PLACE}/{key}/{name}"), str(target / name))
        for folder in sorted({name.partition("/messages/")[0] for name in whole if "/messages/" in name}):
            if (target / folder).is_dir():  # else the record of that start is not there, and it never began
                (target / folder / _MESSAGES).write_bytes(self._messages(f"{_PLACE}/{key}/{folder}/messages", kept, folder))

    def _messages(self, place: str, kept: dict[str, int], folder: str) -> bytes:
        sizes = {name.rpartition("/")[2]: size for name, size in kept.items() if name.startswith(f"{folder}/messages/")}
        found = b""
        for offset in sorted(sizes):
            if int(offset) != len(found):
                break
            found += self._store.read(f"{place}/{offset}") or b""
        return found


def _reach(sizes: dict[str, int]) -> int:
    """How far pieces reach that follow one another from the start."""
    reached = 0
    for offset in sorted(sizes):
        if int(offset) != reached:
            break
        reached += sizes[offset]
    return reached
