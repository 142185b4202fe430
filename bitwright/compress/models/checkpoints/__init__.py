"""Safetensors checkpoints, and the configuration and tokenizer files beside them."""
