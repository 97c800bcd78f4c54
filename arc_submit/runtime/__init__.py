"""The run's machinery: its directory, its workers and their watchdog, its budget. Knows no model and no token."""
