"""Messages between the supervisor and its workers: JSON over a local socket, with file descriptors where a message carries files.

Either side asks and answers; a peer that is gone ends every open question with LostError.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any

import orjson

from platform_assets.errors import RequestError, ServingError
from platform_assets.stages.serving.traffic import NotFoundError

_MESSAGE_BYTES = 4 << 20
_MOST_FILES = 4
_KINDS: dict[str, type[ServingError]] = {kind.__name__: kind for kind in (ServingError, RequestError, NotFoundError)}

# Carries out what the other side asks for.
Handle = Callable[[dict[str, Any], list[int]], Awaitable[Any]]


class LostError(ServingError):
    """The other process is gone."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a link; each is given to a Link in its process."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        for which in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, which, _MESSAGE_BYTES)
    return ends


class Link:
    """One end."""

    def __init__(self, end: socket.socket, handle: Handle, *, on_lost: Callable[[], None]) -> None:
        self._end, self._handle, self._on_lost = end, handle, on_lost
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._numbers = count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop.add_reader(end.fileno(), self._read)

    async def ask(self, order: dict[str, Any], *, files: Sequence[int] = ()) -> Any:
        """Send an order; return its answer, or raise the error it ended with."""
        number = next(self._numbers)
        future = self._open[number] = self._loop.create_future()
        await self._send({"number": number, "order": order}, files)
        return await future

    def close(self) -> None:
        """Close this end."""
        if self._end.fileno() >= 0:
            self._loop.remove_reader(self._end.fileno())
            self._end.close()

    async def _send(self, message: dict[str, Any], files: Sequence[int] = ()) -> None:
        data = orjson.dumps(message)
        while True:
            try:
                socket.send_fds(self._end, [data], list(files))
            except BlockingIOError:
                await asyncio.sleep(0.002)
            except OSError as error:
                self._lose()
                raise LostError("a worker process ended") from error
            else:
                return

    def _read(self) -> None:
        try:
            data, files, _, _ = socket.recv_fds(self._end, _MESSAGE_BYTES, _MOST_FILES)
        except BlockingIOError:
            return
        except OSError:
            data, files = b"", []
        if not data:
            self._lose()
            return
        message = orjson.loads(data)
        if "order" in message:
            task = self._loop.create_task(self._carry_out(message, files))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        future = self._open.pop(message["number"], None)
        if future is not None and not future.done():
            if (kind := message.get("kind")) is None:
                future.set_result(message["answer"])
            else:
                future.set_exception(_KINDS.get(kind, ServingError)(message["answer"]))

    async def _carry_out(self, message: dict[str, Any], files: list[int]) -> None:
        reply: dict[str, Any] = {"number": message["number"]}
        try:
            reply["answer"] = await self._handle(message["order"], files)
        except ServingError as error:
            kind = next(name for name in (type(error).__name__, "RequestError", "ServingError") if isinstance(error, _KINDS.get(name, ())))
            reply |= {"answer": str(error), "kind": kind}
        finally:
            for file in files:
                os.close(file)
        with contextlib.suppress(LostError):
            await self._send(reply)

    def _lose(self) -> None:
        if self._end.fileno() < 0:
            return
        self.close()
        for future in self._open.values():
            if not future.done():
                future.set_exception(LostError("a worker process ended"))
        self._open.clear()
        self._on_lost()
