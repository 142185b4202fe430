"""Tests of `bitwright.compress.models.modules`."""
