"""Packages, checks, pushes and rehearses a Kaggle kernel from the user's machine. Does not know models or how tasks are solved."""
