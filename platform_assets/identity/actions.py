"""What can be done to a Dagster deployment, and which door does what: GraphQL fields and special paths. No decision is made here.

The tables name every mutation and subscription of the installed schema (a test holds them to it). What stands in none is refused.
"""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """What a policy allows or not."""

    READ = "read"
    LAUNCH = "launch"  # runs, backfills; a dry run of a sensor or schedule executes its code
    TERMINATE = "terminate"
    SWITCH = "switch"  # sensors, schedules, automation on and off, a sensor's cursor
    RELOAD = "reload"
    REPORT = "report"  # events about assets that no run made
    CONFIGURE = "configure"  # limits, partitions, components, stopping a code location
    WIPE = "wipe"
    NOTEBOOK = "notebook"  # any notebook file of the code location's machine
    TELEMETRY = "telemetry"
    RECORD = "record"  # runs of MLflow and what is logged to them
    REGISTER = "register"  # aliases, tags and descriptions in MLflow's registry


MUTATIONS: dict[str, Action] = {
    "launchRun": Action.LAUNCH,
    "launchMultipleRuns": Action.LAUNCH,
    "launchRunReexecution": Action.LAUNCH,
    "launchPipelineExecution": Action.LAUNCH,
    "launchPipelineReexecution": Action.LAUNCH,
    "launchPartitionBackfill": Action.LAUNCH,
    "reexecutePartitionBackfill": Action.LAUNCH,
    "resumePartitionBackfill": Action.LAUNCH,
    "scheduleDryRun": Action.LAUNCH,
    "sensorDryRun": Action.LAUNCH,
    "terminateRun": Action.TERMINATE,
    "terminateRuns": Action.TERMINATE,
    "terminatePipelineExecution": Action.TERMINATE,
    "cancelPartitionBackfill": Action.TERMINATE,
    "startSensor": Action.SWITCH,
    "stopSensor": Action.SWITCH,
    "resetSensor": Action.SWITCH,
    "setSensorCursor": Action.SWITCH,
    "startSchedule": Action.SWITCH,
    "stopRunningSchedule": Action.SWITCH,
    "resetSchedule": Action.SWITCH,
    "setAutoMaterializePaused": Action.SWITCH,
    "reloadRepositoryLocation": Action.RELOAD,
    "reloadWorkspace": Action.RELOAD,
    "reportRunlessAssetEvents": Action.REPORT,
    "reportAssetCheckEvaluations": Action.REPORT,
    "addDynamicPartition": Action.CONFIGURE,
    "setConcurrencyLimit": Action.CONFIGURE,
    "deleteConcurrencyLimit": Action.CONFIGURE,
    "freeConcurrencySlots": Action.CONFIGURE,
    "freeConcurrencySlotsForRun": Action.CONFIGURE,
    "shutdownRepositoryLocation": Action.CONFIGURE,
    "setAppManagedComponent": Action.CONFIGURE,
    "deleteAppManagedComponent": Action.CONFIGURE,
    "refreshComponentState": Action.CONFIGURE,
    "deleteRun": Action.WIPE,
    "deletePipelineRun": Action.WIPE,
    "deleteDynamicPartitions": Action.WIPE,
    "wipeAssets": Action.WIPE,
    "setNuxSeen": Action.READ,  # puts a dialog of the web UI away
    "logTelemetry": Action.TELEMETRY,
}
SUBSCRIPTIONS: dict[str, Action] = {
    "capturedLogs": Action.READ,
    "pipelineRunLogs": Action.READ,
    "locationStateChangeEvents": Action.READ,
}
