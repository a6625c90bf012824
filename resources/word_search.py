"""Files in which one of some texts stands as a word, read by a process of its own: `python -m resources.word_search`, asked over its input.

Of its own, because whoever closes a file loses all locks that its process has on it (POSIX, fcntl): SQLite's, on files that are open in the
process that asks. Another process would then take the file for unused, and a database may be lost.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from platform_assets.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Sequence


def find_words(root: Path, texts: Sequence[str], *, apart: Sequence[Path]) -> list[str]:
    """Return names below `root` of files that hold one of the texts; nothing below `apart` is read. StateError where one cannot be."""
    asked = json.dumps({"root": str(root), "texts": list(texts), "apart": [str(one) for one in apart]})
    done = subprocess.run([sys.executable, "-m", __name__], input=asked, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StateError(f"{root} could not be searched: {done.stderr.strip().rpartition(chr(10))[2]}")
    return list(json.loads(done.stdout))


def _search(root: Path, texts: Sequence[str], apart: Sequence[Path]) -> list[str]:
    word = re.compile(rb"(?<![0-9A-Za-z])(?:" + b"|".join(re.escape(text.encode()) for text in texts) + rb")(?![0-9A-Za-z])")
    files = (file for file in root.rglob("*") if file.is_file() and not any(file.is_relative_to(one) for one in apart))
    return [str(file.relative_to(root)) for file in files if _has(file, word)]


def _has(file: Path, word: re.Pattern[bytes]) -> bool:
    try:
        return word.search(file.read_bytes()) is not None
    except FileNotFoundError:  # somebody's passing file
        return False


def main() -> None:
    """Read what is asked, print the names."""
    asked = json.load(sys.stdin)
    json.dump(_search(Path(asked["root"]), asked["texts"], [Path(one) for one in asked["apart"]]), sys.stdout)


if __name__ == "__main__":
    main()
