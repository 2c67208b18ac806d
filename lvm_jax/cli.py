"""What launch scripts share: flags, one-line errors for users, a clean end on Ctrl-C, commands that run others."""

import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TextIO

from absl import app, flags, logging

from lvm_jax.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_HUNG = 75  # EX_TEMPFAIL of sysexits.h: the input was fine, start it again


def run(main: Callable[[], None], *, required_flags: Sequence[str] = ()) -> None:
    """Parses flags, calls `main()` and ends the process.

    A `UserError` prints one line on stderr and exits with 2; Ctrl-C prints one line and exits with 130.
    """
    for name in required_flags:
        flags.mark_flag_as_required(name)

    def guarded(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            _fail(f"unexpected argument {argv[1]!r}: flags begin with --; see --help")
        logging.set_verbosity(logging.WARNING)
        try:
            main()
        except UserError as error:
            _fail(str(error))
        except KeyboardInterrupt:
            print("\ninterrupted; the same command continues from here", file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)

    def parse(argv: Sequence[str]) -> list[str]:
        # Parsing flags runs the config file and applies its overrides, so a user's mistakes there surface here.
        try:
            rest = flags.FLAGS(list(argv))
            if "config" in flags.FLAGS:
                _ = flags.FLAGS.config.to_dict()  # a file that cannot be found raises here
            return rest
        except flags.Error as error:
            # An exception inside a config file arrives as a whole traceback, whose last line says what is wrong.
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            last = lines[-1] if "Traceback" in str(error) else lines[0]
            _fail(f"{last.removeprefix('lvm_jax.errors.UserError: ')}; see --help")
        except (AttributeError, KeyError) as error:  # ml_collections: an override of a missing key
            words = " ".join(str(error).replace("\\n", " ").replace("\\'", "").split()).strip("'\"")
            _fail(f"no such key in the config: {words}; the config file lists all keys")
        except OSError as error:
            _fail(f"--config cannot be read: {' '.join(str(error).split())}")

    app.run(guarded, flags_parser=parse)


def run_python(command: str, lock: TextIO) -> None:
    """Runs `python COMMAND` in a session of its own, so that Ctrl-C reaches it only once: from here.

    The command inherits the lock of `only_one_run`. If it fails, it has said why, and this process ends with its exit
    code.
    """
    # SIGINT and SIGTERM are handed on: the command may want to save before it ends.
    process = subprocess.Popen(
        [sys.executable, *shlex.split(command)], start_new_session=True, pass_fds=[lock.fileno()]
    )
    previous = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    if code:
        sys.exit(code)


@contextlib.contextmanager
def only_one_run(workdir: os.PathLike) -> Iterator[TextIO]:
    """Holds W/.lock. The running command inherits it, so that the orphan of a killed run keeps others out.

    Raises:
      UserError: another run holds the lock.
    """
    with open(os.path.join(workdir, ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another run is still at work in {workdir}: wait until it ends, or stop it, or name another --workdir"
            ) from error
        yield lock


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)
