"""Model readers: GGUF files, Hugging Face folders, and the torch modules that belong to them."""
