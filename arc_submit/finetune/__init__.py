"""Test-time fine-tuning: one adapter for each task."""
