"""The one exception a user's mistake raises: a sentence that says what, where and what to do."""


class UserError(Exception):
    """Bad input. The command line prints the message alone and exits with code 1."""
