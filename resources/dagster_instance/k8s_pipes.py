"""Messages of a pod that Dagster Pipes runs, read from its log until the pod has ended: named as `message_reader` of `PipesK8sClient`.

Dagster's own reader asks again where a log breaks off, and takes one that ends as whole. But an API server ends a log that is followed when
its own time is over, and a kubelet when it rotates the file: the pod goes on, and what it says from then on is lost without a word.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dagster_k8s.pipes import PipesK8sPodLogsMessageReader
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import ReadTimeoutError

if TYPE_CHECKING:
    from dagster import AssetExecutionContext, OpExecutionContext
    from kubernetes.client import CoreV1Api

_PAUSE_SECONDS = 1.0
_GONE = 404


class WholePodLogs(PipesK8sPodLogsMessageReader):
    """Goes on reading while the pod runs; each message once, in order, as Dagster's own does after a break."""

    def consume_pod_logs(
        self, context: OpExecutionContext | AssetExecutionContext, core_api: CoreV1Api, pod_name: str, namespace: str
    ) -> None:
        """Read until a log has ended that was asked for after the pod had."""
        super().consume_pod_logs(context, _Followed(core_api), pod_name, namespace)


class _Followed:
    """The API, but for logs: one that ends while its pod may say more ends as a read timeout, after which Dagster's reader asks again."""

    def __init__(self, api: CoreV1Api) -> None:
        self._api = api

    def read_namespaced_pod_log(self, name: str, namespace: str, **asked: Any) -> Iterator[bytes]:
        """Yield the log's chunks."""
        had_ended = self._has_ended(name, namespace)
        yield from self._api.read_namespaced_pod_log(name, namespace, **asked)
        if not had_ended:
            time.sleep(_PAUSE_SECONDS)
            raise ReadTimeoutError(None, f"/pods/{name}/log", "the log has ended, and its pod had not when it was asked for")  # type: ignore[arg-type]

    def _has_ended(self, name: str, namespace: str) -> bool:
        try:
            return self._api.read_namespaced_pod(name, namespace).status.phase in ("Succeeded", "Failed")
        except ApiException as error:
            if error.status != _GONE:
                raise
            return True
