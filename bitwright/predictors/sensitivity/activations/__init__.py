"""Proxies that need a forward pass over calibration text."""
