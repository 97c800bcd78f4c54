"""The Python subset as a language of programs."""
