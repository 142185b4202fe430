"""llama.cpp: GGUF files, its memory, and its check."""
