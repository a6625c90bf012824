"""How what runs say of themselves is written to standard error: Dagster's own way for people, a line of JSON an event for machines."""

from __future__ import annotations

import logging

import dagster as dg

from platform_assets.logs import JSON, json_handler

_LEVEL = dg.Field(str, is_required=False, default_value="INFO", description="The least grave of what is written.")


def loggers_of(form: str) -> dict[str, dg.LoggerDefinition]:
    """Return what stands in for Dagster's console logger; nothing where people read."""
    return {"console": _console} if form == JSON else {}


@dg.logger(config_schema={"log_level": _LEVEL}, description="A line of JSON an event, on standard error.")
def _console(context: dg.InitLoggerContext) -> logging.Logger:
    # One of its own for each run, as Dagster's are: a handler on the shared one would be added by each.
    logger = logging.Logger("dagster", level=context.logger_config["log_level"].upper())  # noqa: LOG001
    logger.addHandler(json_handler("steps"))
    return logger
