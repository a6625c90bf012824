"""Everything between a source and the `ingested` table: simulated rows, casting, keys, the stream rule, merging. No contract rules."""
