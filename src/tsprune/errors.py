"""The one exception users see."""


class TspruneError(Exception):
    """Something a user can put right; the message is one line that says how.

    The command line prints it and exits with code 2, without a traceback.
    """
