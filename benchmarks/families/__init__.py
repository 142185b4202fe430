"""Tiny random folders of every family of language models, and what becomes of each for every target.

python -m benchmarks.families --build DIR [NAME ...]
"""
