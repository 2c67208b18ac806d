"""The exceptions that say what is wrong in one line: launch scripts print them without a traceback (`lvm_jax.cli`)."""


class UserError(ValueError):
    """A wrong input that a user can mend: the message is one line that names the value, the limit and the fix.

    As a library, catch it like any ValueError.
    """


class BadData(Exception):
    """A picture, record or item that cannot be used, and why. Who reads many counts and names it, and goes on."""
