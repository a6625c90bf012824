"""Releases at rest: encrypted files, a signature, and the one way to open them. Keys and storing are `resources/`."""
