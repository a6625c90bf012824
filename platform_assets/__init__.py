"""What the platform makes: declarations in, a governed model life as one Dagster graph out."""
