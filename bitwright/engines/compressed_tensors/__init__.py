"""transformers and vLLM: checkpoints of compressed-tensors."""
