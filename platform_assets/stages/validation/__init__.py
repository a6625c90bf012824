"""The contract of a dataset held against its rows. No reading, no writing."""
