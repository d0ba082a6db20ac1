"""Corpora, perplexity protocols and classification tasks."""
