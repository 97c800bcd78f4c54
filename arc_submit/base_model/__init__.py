"""A base model in a folder: checks, loading, precision, LoRA, saving."""
