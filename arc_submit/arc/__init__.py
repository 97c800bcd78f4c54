"""ARC data: grids, tasks, data sets, views, predictions, submissions and metrics. Does not know models or tokens."""
