"""Primitives: small compiled functions on images. An image is int8 cells (0 is transparent, others are painted) and its corner's place."""
