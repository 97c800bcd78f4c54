"""Primitives: small compiled functions from an image (int8 cells, 0 is transparent, with the place of its corner) to an image or a list."""
