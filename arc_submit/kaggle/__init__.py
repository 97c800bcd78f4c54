"""What Kaggle asks for: notebooks in step with their scripts. Knows nothing about tasks or models."""
