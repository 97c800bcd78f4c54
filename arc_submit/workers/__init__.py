"""Worker processes: pool, supervisor, protocol, fallback; on this machine or on a Ray cluster. Does not know models."""
