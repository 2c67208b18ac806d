"""The one exception for mistakes that a user can mend."""


class UserError(ValueError):
    """A wrong input: the message is one line that names the value, the limit and the fix.

    Launch scripts print it without a traceback (`lvm_jax.cli.run`); as a library, catch it like any ValueError.
    """
