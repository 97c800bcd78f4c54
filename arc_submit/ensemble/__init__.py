"""From predictions to attempts: pure functions. Knows no model, no file and no solution."""
