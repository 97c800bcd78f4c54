"""Costs of work, the choice of the next job, and whole runs on a simulated clock. Does not know models."""
