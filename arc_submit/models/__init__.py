"""Models: loading with a reason for every choice, engines that generate, and the frozen source. Knows prompts, no training."""
