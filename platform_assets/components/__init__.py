"""From specs to Dagster: assets, checks, jobs, schedules, sensors. The work itself is in stages."""
