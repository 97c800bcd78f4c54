"""What an ARC task is: grids, tasks, data sets, views, predictions, submissions and metrics. Knows no model and no token."""
