"""Processes of the contracts are forked from one that has the imports done."""

from tests import processes

__all__ = ["processes"]
