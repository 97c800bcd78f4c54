"""A run from its configuration to its report: resolving, sources, orchestration."""
