"""The functions that turn artifacts into an artifact, one module per stage."""
