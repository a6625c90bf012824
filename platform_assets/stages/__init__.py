"""Pure work, one room a stage: no dagster, nothing of `resources`, no sibling."""
