"""What launch scripts share: flags, one-line errors for users, a clean end on Ctrl-C, commands that run others."""

import contextlib
import errno
import fcntl
import math
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn, TextIO

from absl import app, flags, logging
from etils import epath

from lvm_jax.errors import BadData, UserError

EXIT_CRASH = 1  # a fault of ours, or of the machine
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_HUNG = 75  # EX_TEMPFAIL of sysexits.h: the input was fine, start it again

# What a path may begin with, the package that opens it, and how to install that.
_STORES = {
    "gs": ("gcsfs", "pip install 'lvm_jax[gs]', in a clone pip install -e '.[gs]'"),
    "s3": ("s3fs", "pip install s3fs"),
    "az": ("adlfs", "pip install adlfs"),
}
# Of a path that a user gave; a failing disk or network is none of them.
_USERS_ERRNO = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EEXIST)
_USERS_ERRNO += (errno.ENOTEMPTY, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG)
_LONGEST = 400  # characters of an unexpected error's own words: XLA's fill pages


def run(main: Callable[[], None], *, required_flags: Sequence[str] = ()) -> None:
    """Parses flags, calls `main()` and ends the process.

    What a user can mend prints one line on stderr and exits with 2: `UserError`, `BadData`, a path that cannot be
    opened, a package that is not installed. Ctrl-C prints one line and exits with 130. Anything else is a fault of
    ours: one line asks for a report and says where the traceback was written, and the exit code is 1.
    """
    for name in required_flags:
        flags.mark_flag_as_required(name)

    def guarded(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            _fail(f"unexpected argument {argv[1]!r}: flags begin with --; see --help")
        logging.set_verbosity(logging.WARNING)
        try:
            main()
        except KeyboardInterrupt:
            print("\ninterrupted; the same command continues from here", file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)
        except Exception as error:
            _explain(error)

    app.run(guarded, flags_parser=_parse)


def _parse(argv: Sequence[str]) -> list[str]:
    """Parses flags, which runs the config file and applies its overrides: a user's mistakes there surface here."""
    try:
        rest = flags.FLAGS(list(argv))
        if "config" in flags.FLAGS:
            _ = flags.FLAGS.config.to_dict()  # a file that cannot be found raises here
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
    except Exception as error:
        _explain(error)
    for name in flags.FLAGS:
        # absl's bounds let NaN through, because no comparison with it is true.
        value = flags.FLAGS[name].value
        if isinstance(value, float) and not math.isfinite(value):
            _fail(f"--{name} is {value}: give a finite number")
    return rest


def _explain(error: Exception) -> NoReturn:
    """Ends the process with one line: what to mend, or where the traceback of our fault lies."""
    if isinstance(error, UserError | BadData):
        _fail(str(error))
    if isinstance(error, OSError) and error.filename is not None and error.errno in _USERS_ERRNO:
        _fail(
            f"{os.fsdecode(error.filename)}: {error.strerror}: check the path, its rights and the space left"
        )
    if isinstance(error, ImportError):
        for store, (package, how) in _STORES.items():
            if package in str(error):
                _fail(f"paths that begin with {store}:// need the package {package}: {how}")
        if isinstance(error, ModuleNotFoundError) and not (error.name or "lvm_jax").startswith(
            "lvm_jax"
        ):
            _fail(
                f"the package of {error.name} is not installed: the extras in setup.py say what installs it"
            )
    if isinstance(error, KeyError) and str(error).endswith("://'"):
        known = ", ".join(f"{store}://" for store in _STORES)
        _fail(
            f"{error.args[0]} is no store that this can open: paths are local, or begin with {known}"
        )
    words = " ".join(str(error).split())
    words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."
    print(
        f"error: unexpected {type(error).__name__}: {words}: this is a fault of the program; please report it with the "
        f"traceback in {_write_traceback(error)}",
        file=sys.stderr,
    )
    sys.exit(EXIT_CRASH)


def _write_traceback(error: Exception) -> str:
    """Writes a file of its own into the workdir or, if there is none yet, the temporary folder; returns its path."""
    text = "".join([f"{shlex.join(sys.argv)}\n", *traceback.format_exception(error)])
    workdir = flags.FLAGS["workdir"].value if "workdir" in flags.FLAGS else None
    with contextlib.suppress(Exception):  # the workdir may be what is broken
        if workdir and (folder := epath.Path(workdir)).is_dir():
            path = folder / f"traceback-{os.uname().nodename}-{os.getpid()}.txt"
            path.write_text(text)
            return str(path)
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="lvm_jax-traceback-", suffix=".txt", delete=False
        ) as file:
            file.write(text)
        return file.name
    except OSError:
        sys.stderr.write(text)  # nowhere else is left
        return "the lines above"


def refuse(unread: Iterable[flags.FlagHolder], what: str) -> None:
    """Refuses flags that were given although nothing reads them.

    Args:
      unread: the flags.
      what: does not read them, such as "a tokenizer alone".

    Raises:
      UserError: one was given.
    """
    for flag in unread:
        if flag.present:
            raise UserError(f"--{flag.name} is not for {what}: leave it out")


def run_python(command: str, lock: TextIO) -> None:
    """Runs `python COMMAND` in a session of its own, so that Ctrl-C reaches it only once: from here.

    The command inherits the lock of `only_one_run`. If it fails, it has said why, and this process ends with its exit
    code. What a signal ended could say nothing: that is said here, and the exit code is 128 + the signal, as in shells.
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
    if code < 0:
        print(
            f"error: python {command} was ended by signal {-code} ({signal.strsignal(-code)}); memory may be short if "
            "nobody sent it; the same command continues from here",
            file=sys.stderr,
        )
        sys.exit(128 - code)
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
    print(f"error: {' '.join(message.splitlines())}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)
