"""Which errors say that a server or the disk is away for a while: the same work may succeed later, unchanged. Nobody is asked here."""

from __future__ import annotations

import errno

from platform_assets.errors import OutageError

# By name: asking needs none of these libraries loaded.
_AWAY = {
    "psycopg2.OperationalError",
    "psycopg2.InterfaceError",
    "dagster_postgres.utils.DagsterPostgresException",
    "redis.exceptions.ConnectionError",
    "redis.exceptions.TimeoutError",
}
_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENETUNREACH, errno.EHOSTUNREACH}
_SQLITE = ("disk is full", "disk I/O error", "database is locked")
# Of Delta Lake's and Arrow's clients, whose errors no class tells apart.
_STORE = ("Generic S3 error", "AWS Error NETWORK_CONNECTION", "AWS Error INTERNAL_FAILURE", "AWS Error UNKNOWN (HTTP status 5")


def is_outage(error: BaseException) -> bool:
    """Whether this very error says so; what it was raised from is its raiser's to judge."""
    if isinstance(error, (OutageError, ConnectionError, TimeoutError)):
        return True
    names = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    if names & _AWAY:
        return True
    if "sqlite3.OperationalError" in names:
        return any(words in str(error) for words in _SQLITE)
    if "sqlalchemy.exc.DBAPIError" in names:
        inner = getattr(error, "orig", None)
        return inner is not None and is_outage(inner)
    return isinstance(error, OSError) and (error.errno in _NUMBERS or any(words in str(error) for words in _STORE))
