"""Refuse manifests before a cluster sees them: `kubectl kustomize DIR | python -m platform_assets.stages.cluster`, or with files."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from platform_assets.stages.cluster.rules import judge


def main(arguments: list[str]) -> int:
    """Judge what the files, or standard input, hold as one cluster; the exit status is 1 where something is refused, 2 where unreadable."""
    manifests = []
    for name in arguments or ["-"]:
        try:
            text = sys.stdin.read() if name == "-" else Path(name).read_text()
            manifests += [one for one in yaml.safe_load_all(text) if one is not None]
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            sys.stderr.write(f"{name} cannot be read as manifests: {error}\n")
            return 2
    if not manifests or not all(isinstance(one, dict) for one in manifests):
        sys.stderr.write("There is no manifest to judge, or something that is none; give what `kubectl kustomize DIR` prints.\n")
        return 2
    faults = judge(manifests)
    sys.stdout.writelines(f"{fault}\n" for fault in faults)
    sys.stdout.write(f"{len(manifests)} manifests, {len(faults)} refusals.\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
