"""Search: ask a method for plans to measure until the effort is spent, and store the history."""
