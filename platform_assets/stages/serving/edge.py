"""The server as an unpacked edge bundle runs it, and the handover of its log. Making bundles is not here.

`python -m platform_assets.stages.serving.edge serve|handover ...`, through the bundle's `bin/falaj-edge`. It opens the server's own port
and no other connection.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from platform_assets.errors import FalajError, ServingError
from platform_assets.stages.serving.admin import STATE_FILE
from platform_assets.stages.serving.handover import hand_over
from platform_assets.stages.serving.server import run_server
from platform_assets.stages.serving.traffic import Traffic, write_state
from platform_assets.stages.serving.worker import ServerConfig

POLICY_FILE = "policy.json"
KEYS, RELEASES, READY_FILE = "keys", "releases", "server.json"


@dataclass(frozen=True)
class EdgePolicy:
    """What one box may do: which release answers, where it listens, how much memory its models take, how its log is kept."""

    model: str
    digest: str
    host: str = "127.0.0.1"
    port: int = 8151
    memory_mb: int = 256
    close_log_seconds: float = 60.0


def read_policy(bundle: Path) -> EdgePolicy:
    """Read a bundle's policy; ServingError names the field that is wrong."""
    file = bundle / POLICY_FILE
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ServingError(f"{file} cannot be read ({error}); unpack the bundle again") from error
    known = {field.name: field for field in fields(EdgePolicy)}
    if not isinstance(found, dict) or (wrong := set(found) ^ set(known)):
        named = min(wrong) if isinstance(found, dict) else "the whole file"
        raise ServingError(f"{file}: {named}: right would be exactly {', '.join(known)}")
    for name in known:
        example = getattr(EdgePolicy("", ""), name)
        kinds = (int, float) if type(example) is float else (type(example),)
        if type(found[name]) not in kinds or (kinds != (str,) and not found[name] > 0):
            raise ServingError(f"{file}: {name}: found {found[name]!r}; right would be {'text' if kinds == (str,) else 'a number above 0'}")
    return EdgePolicy(**found)


def serve(bundle: Path, state: Path, *, port: int | None = None) -> None:
    """Serve the bundle's release until SIGTERM; state and prediction log lie in `state`, which outlives the bundle."""
    policy, serving = read_policy(bundle), state / "serving"
    try:
        serving.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServingError(f"{serving} cannot be made ({error.strerror}); name another folder with --state") from error
    traffic, loaded = Traffic(live=policy.digest), {policy.digest: str((bundle / RELEASES / policy.digest).absolute())}
    write_state(serving / STATE_FILE, {policy.model: {"traffic": vars(traffic), "loaded": loaded}})
    run_server(
        ServerConfig(
            serving=serving.absolute(),
            host=policy.host,
            port=policy.port if port is None else port,
            keys=bundle / KEYS,
            ready_file=state / READY_FILE,
            memory_bytes=policy.memory_mb << 20,
            log_to_disk=True,
            close_log_seconds=policy.close_log_seconds,
        )
    )


def main(arguments: list[str] | None = None) -> int:
    """Read the command line; bad input is one sentence and exit status 1."""
    parser = argparse.ArgumentParser(prog="falaj-edge", description="One model, served where it is needed")
    parser.add_argument("verb", choices=("serve", "handover"))
    parser.add_argument("folder", type=Path, nargs="?", help="of handover: where the link is, such as a mounted share or stick")
    parser.add_argument("--bundle", type=Path, required=True, help="the unpacked bundle")
    parser.add_argument("--state", type=Path, required=True, help="folder of state and prediction log, kept from bundle to bundle")
    parser.add_argument("--port", type=int, help="instead of the policy's; 0 takes a free one")
    options = parser.parse_args(arguments)
    if (options.verb == "handover") != (options.folder is not None):
        parser.error("handover takes a folder, serve takes none")
    try:
        if options.verb == "serve":
            serve(options.bundle, options.state, port=options.port)
        else:
            done = hand_over(options.state, model=read_policy(options.bundle).model, folder=options.folder)
            sys.stdout.write(
                f"{done.brought} segments were brought to {options.folder}; {done.taken} were taken by the home and are gone here.\n"
            )
    except FalajError as error:
        sys.stderr.write(f"falaj-edge: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
