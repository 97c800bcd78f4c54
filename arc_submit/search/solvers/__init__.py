"""Extra solvers beside the programs: each a small module with `solve(task)`, which gives answers and what share of pairs they explain."""
