"""Compression methods: one file each; the contract is in `interface.py`."""
