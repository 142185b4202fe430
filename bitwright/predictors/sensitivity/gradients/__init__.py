"""Proxies that need forward and backward passes over calibration text."""
