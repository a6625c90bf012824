"""Evaluation: the named baseline beside every teacher, and the pictures by which people judge trainings and candidates."""
