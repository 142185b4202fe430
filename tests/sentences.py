"""The check of messages to users, from the contracts."""

from bitwright.testing.sentences import sentence

__all__ = ["sentence"]
