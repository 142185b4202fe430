"""Plan for a limit: sizes, memory and costs, the candidates, and their measurements on held-out text."""
