"""The gateway: the one way to Dagster's web server. Nothing passes that `identity` did not judge (NIST SP 800-207: enforcement)."""
