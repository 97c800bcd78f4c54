"""What work costs, which work comes next, and whole runs simulated on a clock of their own. Does not know models."""
