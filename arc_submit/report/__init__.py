"""The report at the end of a run: tables and pictures. Takes solutions where they are known, and gives nothing back to solvers."""
