"""Tasks as token sequences and back: grid encoders, prompts, token reuse, truncation. Knows tokenizers; does not know models."""
