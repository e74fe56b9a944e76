"""The exceptions that the command line turns into one line: a user's mistake (exit 2) and a wish to stop (130)."""


class InputError(Exception):
    """Bad input. The message is one line that names the key or file, what is wrong, and the mend."""


class Elsewhere(InputError):
    """Bad input that another process of the same run tells the user of."""


class Stopped(Exception):
    """The user asked to stop, and everything is saved. The message says how to go on."""
