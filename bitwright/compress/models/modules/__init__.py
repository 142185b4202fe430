"""A model as its transformers module: structure, tensors, and layers that cannot be packed."""
