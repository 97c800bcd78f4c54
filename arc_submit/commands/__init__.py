"""One module for each sub-command: its options, and a call of what does the work."""
