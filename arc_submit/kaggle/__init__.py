"""What Kaggle asks for, checked and done from the competitor's own machine. Knows nothing about models or how tasks are solved."""
