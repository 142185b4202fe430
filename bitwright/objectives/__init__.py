"""What a choice is worth: quality on text, seconds, and what an engine says of it."""
