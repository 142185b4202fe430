"""What a choice is thought to be worth before it is measured."""
