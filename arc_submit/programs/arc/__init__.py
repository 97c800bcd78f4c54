"""A writer for the language of the program search: it proposes operations to the search, which runs and completes them."""
