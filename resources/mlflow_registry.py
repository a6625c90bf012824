"""MLflow as experiment log and registry. Whether a version may become champion is decided by rollout verdicts, not here."""

from __future__ import annotations

import fcntl
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from platform_assets.errors import StateError
from resources.settings import silence_telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    from platform_assets.specs.telemetry import Point

_LOG = logging.getLogger("falaj.mlflow")
_MOST_METRICS = 1000  # MLflow refuses more in one log_batch call
_STEP = "epoch"


class MlflowRegistry:
    """MLflow over a database, SQLite in one folder unless `uri` names another: an experiment and a registered model a model."""

    def __init__(self, home: Path, *, uri: str | None = None) -> None:
        """Keep locks and artefacts in `home`; `uri` is a tracking and registry URI, as `mlflow ui --backend-store-uri` takes it."""
        self._home = home
        self.uri = uri or f"sqlite:///{home / 'mlflow.db'}"
        self._client: MlflowClient | None = None

    def start_training(self, model: str, tags: Mapping[str, str]) -> str:
        """Open the run of a training that has begun; return its run id. An MLflow that does not answer raises StateError."""
        silence_telemetry()
        from mlflow.exceptions import MlflowException

        try:
            client = self._connect()
            run = client.create_run(self._experiment(client, model), tags={name: str(value) for name, value in tags.items()})
        except MlflowException as error:
            raise StateError(f"MLflow in {self._home} opened no run for {model}: {error}") from error
        return str(run.info.run_id)

    def log_live(self, run_id: str, points: Sequence[Point]) -> None:
        """Log figures of an open run; what MLflow cannot take now is lost, with a warning."""
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        try:
            self._log(run_id, [Metric(name, value, int(1000 * p.at), p.step) for p in points for name, value in p.figures.items()])
        except MlflowException as error:
            _LOG.warning("MLflow did not take the figures of run %s: %s", run_id, error)

    def log_training(
        self,
        model: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        curve: Sequence[Mapping[str, float]],
        tags: Mapping[str, str],
        *,
        run_id: str | None = None,
    ) -> str:
        """Log one training: parameters, final metrics, learning curve (one mapping a step, `epoch` its number), tags; return its run id."""
        from mlflow.entities import Metric, Param, RunTag

        client = self._connect()
        run_id = run_id or self.start_training(model, {})
        points = [(name, float(value), 0) for name, value in metrics.items()]
        for index, row in enumerate(curve):
            step = int(row.get(_STEP, index))
            points += [(f"curve/{name}", float(value), step) for name, value in row.items() if name != _STEP]
        client.log_batch(
            run_id,
            params=[Param(name, str(value)) for name, value in params.items()],
            tags=[RunTag(name, str(value)) for name, value in tags.items()],
        )
        self._log(run_id, [Metric(name, value, 0, step) for name, value, step in points])
        client.set_terminated(run_id, status="FINISHED")
        return run_id

    def drop_training(self, run_id: str) -> None:
        """Close the run of a training that came to nothing, as failed."""
        self._connect().set_terminated(run_id, status="FAILED")

    def _log(self, run_id: str, metrics: Sequence[Metric]) -> None:
        for start in range(0, len(metrics), _MOST_METRICS):
            self._connect().log_batch(run_id, metrics=metrics[start : start + _MOST_METRICS])

    def register(self, model: str, bundle: Path, *, run_id: str, tags: Mapping[str, str]) -> str:
        """Register a bundle as a model version; the same digest (tag `digest`, else the folder's name) again returns the same version."""
        digest = tags.get("digest", bundle.name)
        client = self._connect()
        with self._alone():
            known = client.search_model_versions(f"name = '{model}' and tag.digest = '{digest}'")
            if known:
                return str(min(int(version.version) for version in known))
            if not client.search_registered_models(f"name = '{model}'"):
                client.create_registered_model(model)
            version = client.create_model_version(model, source=bundle.absolute().as_uri(), run_id=run_id, tags={**tags, "digest": digest})
            return str(version.version)

    def set_alias(self, model: str, alias: str, version: str | None) -> None:
        """Point an alias at a version; None removes it. A version that is not registered raises StateError."""
        from mlflow.exceptions import MlflowException

        client = self._connect()
        if version is None:
            if self.alias(model, alias) is not None:
                client.delete_registered_model_alias(model, alias)
            return
        try:
            client.set_registered_model_alias(model, alias, version)
        except MlflowException as error:
            raise StateError(f"version {version} of {model} is not in the registry, so {alias} cannot point at it") from error

    def alias(self, model: str, alias: str) -> str | None:
        """Return the version an alias points at; None where there is none."""
        found = self._connect().search_registered_models(f"name = '{model}'")
        version = found[0].aliases.get(alias) if found else None
        return None if version is None else str(version)

    def _connect(self) -> MlflowClient:
        if self._client is None:
            silence_telemetry()
            from mlflow.tracking import MlflowClient

            logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # its set-up is no news to a user
            self._home.mkdir(parents=True, exist_ok=True)
            # Two first users would set the database up at once (about 2 s): the second waits.
            with self._alone():
                client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
                client.get_experiment("0")
            self._client = client
        return self._client

    def _experiment(self, client: MlflowClient, model: str) -> str:
        with self._alone():
            known = client.get_experiment_by_name(model)
            return str(
                known.experiment_id
                if known
                else client.create_experiment(model, artifact_location=(self._home / "artifacts" / model).absolute().as_uri())
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._home / "falaj.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
