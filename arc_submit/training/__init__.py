"""Training: the pocket base model. Knows models and prompts; knows nothing about runs and submissions."""
