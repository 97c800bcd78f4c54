"""Training of a base model on a mixture of data sets."""
