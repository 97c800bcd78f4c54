"""How a task becomes tokens and comes back: grid encoders, prompts, token reuse, fitting. Knows tokenizers, no model."""
