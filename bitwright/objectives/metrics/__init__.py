"""Quality objectives: divergences from the original model, perplexity, task errors, hidden-state and router statistics."""
