"""What an inference server is made of, as files: our modules that it imports, and the installed packages of the extra `serve`."""

from __future__ import annotations

import ast
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

import platform_assets
from platform_assets.errors import ReleaseError
from resources.packages import installed_packages

if TYPE_CHECKING:
    from collections.abc import Iterator

_OURS = Path(platform_assets.__file__).parent.parent
ENTRY = "platform_assets.stages.serving.edge"
INFRA = _OURS / "infra" / "edge"
_LEFT_OUT = {"tests", "__pycache__"}  # a third of numpy


def site_files() -> Iterator[tuple[str, Path]]:
    """Yield path below the site directory and file, of everything that the server needs beside Python."""
    yield from our_modules(ENTRY)
    for package in installed_packages():
        if package.serves:
            yield from _package_files(package.name)


def our_modules(entry: str, *more: str) -> list[tuple[str, Path]]:
    """Return every module of ours that one imports, or one of `more`, directly or not, wherever in it the import stands."""
    found: dict[str, Path] = {}
    queue = [entry, f"{entry.rpartition('.')[0]}.__main__", *more]
    while queue:
        name = queue.pop()
        if name in found or (file := _file_of(name)) is None:
            continue
        found[name] = file
        queue.extend([name.rpartition(".")[0], *_imports(file)])
    return sorted((file.relative_to(_OURS).as_posix(), file) for file in found.values())


def _file_of(name: str) -> Path | None:
    if name.partition(".")[0] != platform_assets.__name__:
        return None
    place = _OURS.joinpath(*name.split("."))
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _package_files(name: str) -> Iterator[tuple[str, Path]]:
    package = distribution(name)
    if not package.files:
        raise ReleaseError(f"package {name} has no record of its files; install it anew from a wheel, not editable")
    for path in package.files:
        if ".." in path.parts or _LEFT_OUT & set(path.parts):  # scripts of the environment; what no server runs
            continue
        yield path.as_posix(), Path(str(package.locate_file(path)))
