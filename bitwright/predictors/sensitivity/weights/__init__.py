"""Proxies that need the weights alone."""
