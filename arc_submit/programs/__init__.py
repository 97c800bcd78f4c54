"""Programs that a model writes for a task, run, relabelled by what they really do, and learnt from."""
