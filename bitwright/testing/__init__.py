"""Contract tests that every part passes, and a part of your own can inherit: one file for each kind, with an example at its top.

They need pytest and hypothesis, `pip install 'bitwright[testing]'`. `docs/extending.md` shows a complete part of each kind.
"""
