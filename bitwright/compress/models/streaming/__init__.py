"""Models that are larger than memory: the weights of a block are read when it is run, and freed afterwards."""
