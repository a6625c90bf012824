"""Who asks, what they ask for, and whether they may: pure, without network, files or Dagster. NIST SP 800-207's policy decision point."""
