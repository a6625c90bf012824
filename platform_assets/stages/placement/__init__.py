"""Where an asset runs: what its profile means to Dagster and Kubernetes, and what it gets on the machine at hand. Pure functions."""
