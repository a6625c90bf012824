"""Frozen shapes: of the declarations a user writes, and of the values that stages hand to each other."""
