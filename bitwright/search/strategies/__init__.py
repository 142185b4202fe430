"""Ask/tell search strategies: ask for plans to be measured, and learn from the results."""
