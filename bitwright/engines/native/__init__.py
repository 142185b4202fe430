"""Native checkpoints: a format for every expert and part of channels, loaded by transformers."""
