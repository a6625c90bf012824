"""Scans of what is shipped: packages against advisories, files for secrets, code for what is dangerous. The platform needs none of it."""
