"""The exception for what a user can mend: wrong files, folders or options."""


class DataError(ValueError):
    """Says in a sentence what is wrong, where, and what to do next."""
