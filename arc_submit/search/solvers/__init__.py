"""Further solvers beside the programs: each is a small module with `solve(task)`, which returns answers."""
