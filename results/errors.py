"""Errors of the store and the board that a user can cause."""


class StoreError(ValueError):
    """The store cannot be read or written as asked; the message is meant for the user."""
