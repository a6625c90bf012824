"""The exception tree. Every error a user can cause ends here, as one clear sentence.

FalajError
├── SpecError            one or more declarations are wrong; lists every fault of every file
├── DataError            a source or table does not hold what was declared
│   └── SourceError      a source cannot be read at all (missing file, unknown format, bad URL)
├── StageError           a stage could not do its work
│   ├── TrainingError    the trainer ended without a usable checkpoint
│   │   ├── DivergedError   the loss was not finite, again after the learning rate was lowered
│   │   ├── PreemptedError  the trainer was asked to end early; its state is saved and a new start goes on
│   │   └── GivenUpError    a trial fell behind the others of its sweep
│   ├── ReproductionError  a training made again is not the one that was recorded
│   ├── LeaseError       GPUs were asked for that can never be given
│   ├── ExportError      the exported graph does not answer as the trained network does
│   └── ReleaseError     a bundle is incomplete, altered or of an unknown layout
│       └── SealError    a signature or an encryption does not hold; `reason` says which in a word or two
├── ServingError         the inference server refused or did not answer
│   ├── RequestError     a caller's request is wrong; names the field (HTTP 4xx)
│   └── AccessError      no token, or not a valid one (HTTP 401)
│       └── ForbiddenError  a known caller who may not do this (HTTP 403)
├── AdmissionError       a run may not start: its budget, its own limit or where its data may be forbids it
├── ResidencyError       something would be placed where the data that it is made from may not be
├── BackupError          a backup cannot be taken, or is altered, cut off, or without its keys
├── ScanError            a scan could audit nothing, or an exception from one is malformed or has run out
├── SettingsError        a settings file is wrong, or a server that it names does not answer; lists every fault
└── StateError           FALAJ_HOME is held by another process, or holds something else
    └── OutageError      a server or a disk that keeps state is away; the same may succeed later

A message says what was asked, what was found, what would be right and where to change it.
"""

from __future__ import annotations

from dataclasses import dataclass


class FalajError(Exception):
    """Root of everything this platform raises on purpose."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one declaration: where, what was found, what would be right."""

    file: str
    field: str
    message: str

    def __str__(self) -> str:
        """One line for a terminal."""
        return f"{self.file}: {self.field}: {self.message}" if self.field else f"{self.file}: {self.message}"


class SpecError(FalajError):
    """Declarations are wrong; `faults` holds every fault of every file."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        noun = "fault" if len(faults) == 1 else "faults"
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(f"{len(faults)} {noun} in the declarations:\n{lines}")


class DataError(FalajError):
    """A source or table does not hold what was declared."""


class SourceError(DataError):
    """A source cannot be read at all."""


class StageError(FalajError):
    """A stage could not do its work."""


class TrainingError(StageError):
    """The trainer ended without a usable checkpoint."""


class DivergedError(TrainingError):
    """The training loss was not finite, again after the learning rate was lowered."""


class PreemptedError(TrainingError):
    """The trainer was asked to end early; its state is saved and a new start goes on."""


class GivenUpError(TrainingError):
    """A trial of a sweep was stopped because it falls behind the others."""


class ReproductionError(StageError):
    """A training made again is not the one that was recorded."""


class LeaseError(StageError):
    """Slots of a pool were asked for that can never be given."""


class ExportError(StageError):
    """The exported graph does not answer as the trained network does."""


class ReleaseError(StageError):
    """A bundle is incomplete, altered or of an unknown layout."""


class SealError(ReleaseError):
    """The signature or encryption of a release does not hold: altered, unsigned, foreign key, foreign form, replayed, key lost, ..."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ServingError(FalajError):
    """The inference server refused or did not answer."""


class RequestError(ServingError):
    """A caller's request is wrong; the message names the field."""


class AccessError(ServingError):
    """No token, or not a valid one."""


class ForbiddenError(AccessError):
    """A known caller who may not do this."""


class AdmissionError(FalajError):
    """A run may not start: its budget, its own limit or where its data may be forbids it."""


class ResidencyError(FalajError):
    """Something would be placed where the data that it is made from may not be."""


class BackupError(FalajError):
    """A backup cannot be taken, or one is altered, cut off, or without its keys."""


class ScanError(FalajError):
    """A scan could audit nothing, or an exception from one is malformed or has run out."""


class SettingsError(FalajError):
    """A settings file is wrong, or a server that it names does not answer; `faults` holds all that is."""

    def __init__(self, faults: list[Fault], *, what: str = "the team's settings") -> None:
        self.faults = faults
        noun = "thing is" if len(faults) == 1 else "things are"
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(f"{len(faults)} {noun} wrong with {what}:\n{lines}")


class StateError(FalajError):
    """The platform's home is held by another process, or holds something else."""


class OutageError(StateError):
    """A server or a disk that keeps state cannot be used now; the same may succeed later, unchanged."""


class EventError(FalajError):
    """An event is malformed or of an unknown type, or its queue cannot be reached."""
