"""Tables of the report for a terminal."""
