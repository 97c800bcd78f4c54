"""The run directory: every path in it, every read and write."""
