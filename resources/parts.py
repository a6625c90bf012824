"""All parts of one environment, bound in one function. Nothing is opened, connected or imported until it is used."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from platform_assets import ports
    from platform_assets.specs.catalogue import Catalogue
    from platform_assets.specs.dataset import DatasetSpec
    from resources.border import Border
    from resources.column_keys import ColumnKey
    from resources.databases import Database
    from resources.erasures import Erasures
    from resources.s3 import S3
    from resources.settings import Settings
    from resources.studies import Scalar, Space, Study
    from resources.team import Room


class Unwatched:
    """Nobody looks on: what steps say of their progress goes nowhere."""

    def step(self, name: str) -> None:
        """A step began."""

    def note(self, text: str) -> None:
        """Something within the step is worth showing."""


@dataclass(frozen=True)
class Parts:
    """The parts of an environment, embedded ones or a team's servers. Each is made when first asked for."""

    settings: Settings
    catalogue: Catalogue
    provided: Mapping[str, str]
    watcher: ports.Watcher = field(default_factory=Unwatched)
    launches: set[str] = field(default_factory=set)  # runs whose launch the audit log is known to hold
    _starts: dict[str, datetime | None] = field(default_factory=dict)  # finding it reads the whole source

    @cached_property
    def tables(self) -> ports.TableStore:
        """Delta tables in a folder or a store, personal columns of raw ones sealed."""
        from resources.delta_tables import DeltaTableStore
        from resources.sealed_tables import SealedTables

        store = self._store
        tables = DeltaTableStore("tables", store=store) if store else DeltaTableStore(self.settings.home.tables)
        return SealedTables(tables, datasets=self.catalogue.datasets, key=self.column_key)

    @cached_property
    def column_key(self) -> ColumnKey:
        """Key of personal columns, wrapped under the key file."""
        from resources.column_keys import ColumnKey

        return ColumnKey(self.settings.home.keys, keys=self.keys)

    @cached_property
    def _store(self) -> S3 | None:
        """The team's S3-compatible store, where it names one."""
        from resources.s3 import S3

        return S3(self.settings.team.store) if self.settings.team and self.settings.team.store else None

    @cached_property
    def artefacts(self) -> ports.ArtifactStore:
        """Content-addressed folders, in the home or in a store."""
        from resources.artifacts import FolderArtifactStore
        from resources.s3_artifacts import S3ArtifactStore

        if self._store is not None:
            return S3ArtifactStore(self._store, cache=self.settings.home.artefacts)
        return FolderArtifactStore(self.settings.home.artefacts)

    @cached_property
    def keys(self) -> ports.Keys:
        """A key file of mode 0600, the store's key service, or Vault."""
        from resources.keys import LaptopKeys
        from resources.kms import KmsKeys
        from resources.team import vault_place
        from resources.vault import VaultKeys

        if self.settings.team is not None and self.settings.team.vault is not None:
            return VaultKeys(vault_place(self.settings.team.vault))
        if self._store is not None and self._store.has_kms:
            return KmsKeys(self._store)
        return LaptopKeys(self.settings.home.keys)

    @cached_property
    def releases(self) -> ports.ReleaseStore:
        """Signed and encrypted folders, in the home or in a store."""
        from resources.keys import ModelSigner
        from resources.releases import SealedReleases
        from resources.s3_releases import S3Releases

        home, signer = self.settings.home, ModelSigner(self.settings.home.keys)
        if self._store is not None:
            return S3Releases(self._store, cache=home.releases, keys=self.keys, signer=signer)
        return SealedReleases(home.releases, keys=self.keys, signer=signer)

    @cached_property
    def mirror(self) -> ports.TrainingMirror:
        """Checkpoints and messages of trainings under way, in a team's store too."""
        from resources.training_mirror import NoMirror, S3TrainingMirror

        return S3TrainingMirror(self._store) if self._store is not None else NoMirror()

    @cached_property
    def features(self) -> ports.FeatureStore:
        """Feast: Delta offline, SQLite or Redis online."""
        from resources.feast_store import FeastFeatureStore
        from resources.feast_store.values import place_of

        return FeastFeatureStore(self.settings.home.feast, tables=self.tables, online=place_of(self.settings))

    @cached_property
    def registry(self) -> ports.ModelRegistry:
        """MLflow on SQLite or PostgreSQL."""
        from resources.mlflow_registry import MlflowRegistry

        return MlflowRegistry(self.settings.home.mlflow, uri=database_of(self.settings, "mlflow"))

    @cached_property
    def serving(self) -> ports.ServingTarget:
        """The inference server of this home."""
        from resources.serving import LocalServing

        return LocalServing(self.settings, self.releases, border=self.border, trace_of=self._trace_of)

    @cached_property
    def border(self) -> Border:
        """The last look before something is placed where its data may not be."""
        from resources.border import Border

        return Border(self.catalogue, self.settings.places, lambda: self.audit)

    def _trace_of(self, model: str, digest: str) -> str | None:
        """Return where a release was made, as its entry in the audit log says."""
        made = [one["detail"] for one in self.audit.entries(subject=f"model/{model}") if one["action"] == "release"]
        return next((detail.get("trace") for detail in reversed(made) if detail["digest"] == digest), None)

    @cached_property
    def clock(self) -> ports.Clock:
        """Time of the data."""
        from resources.clock import SqlClock

        return SqlClock(open_state_of(self.settings))

    @cached_property
    def audit(self) -> ports.AuditLog:
        """Hash-chained, signed log of who did what; what the inference server noted until now is in it."""
        from resources.incidents import take_over

        log = open_audit(self.settings)
        take_over(self.settings.home.serving, log)
        return log

    @cached_property
    def ledger(self) -> ports.Ledger:
        """What every step asked for, used and cost."""
        from resources.ledger import SqliteLedger, open_ledger

        return open_ledger(self.settings.ledger) if self.settings.ledger else SqliteLedger(self.settings.home.state)

    @cached_property
    def leases(self) -> ports.LeaseTable:
        """Who holds which GPU."""
        from resources.leases import SqliteLeaseTable, open_leases

        return open_leases(self.settings.leases) if self.settings.leases else SqliteLeaseTable(self.settings.home.leases)

    @cached_property
    def inbox(self) -> ports.EventQueue:
        """Events that ask this platform for something."""
        from resources.events import INBOX, open_queue

        return open_queue(INBOX, url=self.settings.events, path=self.settings.home.events)

    @cached_property
    def outbox(self) -> ports.EventQueue:
        """Events that tell others what happened here."""
        from resources.events import OUTBOX, open_queue

        return open_queue(OUTBOX, url=self.settings.events, path=self.settings.home.events)

    @cached_property
    def live_metrics(self) -> ports.LiveMetrics:
        """Gauges for Prometheus, in files."""
        from resources.live_metrics import TextfileMetrics

        return TextfileMetrics(self.settings.home.metrics)

    @cached_property
    def notifier(self) -> ports.Notifier:
        """Log, and the outbox to webhook and e-mail."""
        from resources.notifiers import build_notifier

        return build_notifier(self.settings)

    @cached_property
    def pseudonym_key(self) -> bytes:
        """Key under which personal values become pseudonyms."""
        from resources.home import ensure_secret

        return ensure_secret(self.settings.home.keys / "pseudonym.key")

    def open_study(self, name: str, *, space: Space, declared: Mapping[str, Scalar], higher_is_better: bool) -> Study:
        """Open a hyperparameter search in Optuna's database."""
        from resources.studies import Study

        url = database_of(self.settings, "optuna") or f"sqlite:///{self.settings.home.studies}"
        return Study(url, name, space=space, declared=declared, higher_is_better=higher_is_better)

    def start_clock(self, dataset: DatasetSpec) -> datetime:
        """Put a stream's clock at the end of its history, unless it is further already; return what time it is."""
        from resources.sources import stream_start

        if dataset.name not in self._starts:
            self._starts[dataset.name] = stream_start(dataset, self.source(dataset.name))
        start = self._starts[dataset.name]
        return self.clock.advance(dataset.name, start) if start is not None else self.clock.now(dataset.name)

    @cached_property
    def erasures(self) -> Erasures:
        """Journals of erasures, and who is forgotten."""
        from resources.erasures import Erasures

        return Erasures(self.settings.home.erasures, state=open_state_of(self.settings), key=self.pseudonym_key)

    def find_in_servers(self, words: Sequence[str]) -> list[str]:
        """Return columns of the databases of this environment in which one of these words stands; none where there is no server."""
        from resources.sql_search import find_words

        dsns = {database_of(self.settings, "falaj"), self.settings.ledger, self.settings.leases}
        return [
            f"PostgreSQL {column}"
            for dsn in sorted(filter(None, dsns))
            if dsn.startswith("postgresql:")
            for column in find_words(dsn, words)
        ]

    def source(self, dataset: str) -> ports.Source:
        """Open a dataset's source, read without those who are forgotten."""
        from resources.sources import WithoutForgotten, open_source

        spec = self.catalogue.datasets[dataset]
        found = open_source(spec, provided=self.provided.get(dataset))
        return WithoutForgotten(found, spec.subject, dataset, self.erasures, self.pseudonym_key) if spec.subject else found


def database_of(settings: Settings, room: Room) -> str | None:
    """Return the DSN of a schema in the team's PostgreSQL; None where there is no team."""
    from resources.team import postgresql_dsn

    return postgresql_dsn(settings.team.postgresql, room) if settings.team else None


def open_state_of(settings: Settings) -> Database:
    """Open where small state of this platform lies: the state file, or the team's PostgreSQL."""
    from resources.databases import PostgresDatabase, SqliteDatabase

    dsn = database_of(settings, "falaj")
    return PostgresDatabase(dsn) if dsn else SqliteDatabase(settings.home.state)


def open_audit(settings: Settings) -> ports.AuditLog:
    """Open the audit log, for those who need no other part."""
    from resources.audit import PostgresAuditLog, SqliteAuditLog
    from resources.audit_signature import HeadSigner

    signer, dsn = HeadSigner(settings.home.keys), database_of(settings, "falaj")
    return PostgresAuditLog(dsn, signer=signer) if dsn else SqliteAuditLog(settings.home.state, signer=signer)


def build_parts(settings: Settings, catalogue: Catalogue, *, watcher: ports.Watcher | None = None) -> Parts:
    """Bind the parts of the environment that FALAJ_ENV names."""
    from resources.home import read_sources

    return Parts(settings, catalogue, read_sources(settings.home), watcher or Unwatched())


def instance_config(settings: Settings) -> bytes:
    """Return Dagster's instance file: the laptop's, its storage in PostgreSQL where there is a team."""
    from resources.settings import CHECKOUT

    whole = (CHECKOUT / "infra" / "dagster" / "laptop.yaml").read_bytes()
    dsn = database_of(settings, "dagster")
    return whole if dsn is None else whole + f"storage:\n  postgres:\n    postgres_url: {json.dumps(dsn)}\n".encode()
