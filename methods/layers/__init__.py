"""Factorised layers with the dense layer's input and output shapes."""
