"""Rules of data protection and lineage, as pure functions over rows and specs."""
