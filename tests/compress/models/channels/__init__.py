"""Tests of `bitwright/compress/models/channels`."""
