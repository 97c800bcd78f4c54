"""From the predictions of several sources to two attempts for each test input. Does not know files or solutions."""
