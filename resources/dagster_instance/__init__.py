"""What Dagster's own instance loads of ours: named in infra/dagster/*.yaml, run by the web server and the daemon."""
