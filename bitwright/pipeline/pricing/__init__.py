"""Price a run: the space of pairs worth offering, sensitivity tables, and predictions made of them."""
