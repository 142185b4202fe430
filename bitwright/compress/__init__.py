"""What a choice does to weights, and how it is written down."""
