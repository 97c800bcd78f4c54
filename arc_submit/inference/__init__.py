"""Predictions with a model: two engines behind one protocol, decoding, depth-first search, scoring."""
