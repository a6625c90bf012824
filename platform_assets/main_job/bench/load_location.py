"""A contestant: loads a tree of declarations up to the repository's snapshot, as a code server does. `... load_location DEFS HOME`."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path


def main() -> None:
    """Print the figures as JSON."""
    began = time.process_time()
    from dagster._core.remote_representation.external_data import RepositorySnap

    from platform_assets.definitions import bind_parts, load_defs
    from resources.settings import Home, read_settings

    imported = time.process_time()
    settings = replace(read_settings(), defs_root=Path(sys.argv[1]), home=Home(Path(sys.argv[2])))
    repository = load_defs(bind_parts(settings)).get_repository_def()
    snapshot = RepositorySnap.from_def(repository)
    figures = {
        "cpu_seconds": time.process_time(),
        "import_cpu_seconds": imported - began,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "assets": len(snapshot.asset_nodes),
        "checks": len(snapshot.asset_check_nodes or ()),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
