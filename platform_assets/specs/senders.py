"""Who may send events by webhook (`FALAJ_SENDERS`): the shape of that file, one table a sender."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FilePath, RootModel, field_validator

from platform_assets.specs.base import Name, Spec
from platform_assets.specs.events import INCOMING


class SenderSpec(Spec):
    """One program outside. Its events bear the source `/NAME`, so that none speaks for another."""

    secret_file: FilePath = Field(
        description="File of mode 0600 with its secret, `whsec_BASE64`; while secrets are changed two lines, each of which is good."
    )
    types: Annotated[tuple[str, ...], Field(min_length=1, description="Types of events that it may send.")]

    @field_validator("types")
    @classmethod
    def _come_in(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [kind for kind in types if kind not in INCOMING]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no type that is taken in; right would be some of {', '.join(INCOMING)}")
        return types


class SendersSpec(RootModel[dict[Name, SenderSpec]]):
    """The whole file: name of a sender to what it may."""
