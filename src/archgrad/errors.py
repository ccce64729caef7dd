"""The one exception that means "the user can mend this"."""


class UsageError(ValueError):
    """What should hold, what came, what to do: one line. The command line prints it and exits with 2.

    Anything else that escapes is a bug of archgrad's and keeps its traceback.
    """
