"""Tiny random folders of every family of language models, and what becomes of each for every target.

python -m benchmarks.families DIR --build [NAME ...]                 # write the folders, load each with transformers
python -m benchmarks.families DIR [NAME ...] [--target TARGET]       # fit each to each target, and print the matrix
"""
