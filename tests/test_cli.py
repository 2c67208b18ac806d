"""How a launch script ends: one line on stderr and a documented exit code, whatever was raised."""

import errno
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from lvm_jax import cli
from lvm_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
SCRIPT = """
from absl import flags
from etils import epath
from lvm_jax import cli
from lvm_jax.errors import BadData, UserError
from lvm_jax.pictures.decode import BadImage

flags.DEFINE_string("workdir", None, "")
flags.DEFINE_float("share", 0.5, "", lower_bound=0, upper_bound=1)

def main():
    {body}

cli.run(main)
"""


def end(body, *words, **environment):
    """(exit code, stderr) of a launch script whose main() is `body`."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT.format(body=body), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "", "PYTHONPATH": str(ROOT), **environment},
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise UserError('rate is 3: at most 2')", "error: rate is 3: at most 2"),
        ("raise UserError('two\\nlines')", "error: two lines"),
        ("raise BadData('a.png: cut short')", "error: a.png: cut short"),
        ("raise BadImage('a.png', 'cut short')", "cut short"),
        ("open('nowhere/a.json')", "error: nowhere/a.json: No such file or directory"),
        ("open('/')", "error: /: Is a directory"),
        ("import a_package_of_nobody", "error: the package of a_package_of_nobody is not"),
        ("epath.Path('hdfs://b/x').exists()", "error: hdfs:// is no store that this can open"),
        (
            "raise ImportError('Please install gcsfs to access Google Storage')",
            "error: paths that begin with gs:// need the package gcsfs: pip install 'lvm_jax[gs]'",
        ),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_code_2(body, message):
    code, said = end(body)
    assert (code, said.count("\n")) == (2, 1), said
    assert message in said


@pytest.mark.parametrize(
    "body",
    [
        "{}['missing']",
        "raise RuntimeError('many\\nlines ' * 1000)",
        f"raise OSError({errno.EIO}, 'the disk', 'a.bin')",
        "import lvm_jax.no_such_room",
        "raise ValueError",
    ],
)
def test_a_fault_of_ours_is_one_line_that_says_where_the_traceback_is(tmp_path, body):
    code, said = end(body, f"--workdir={tmp_path}")
    assert (code, said.count("\n")) == (1, 1), said
    assert len(said) < 1000
    assert "please report it" in said
    (file,) = tmp_path.iterdir()
    assert said.endswith(f"{file}\n")
    assert "Traceback (most recent call last)" in file.read_text()
    assert f"--workdir={tmp_path}" in file.read_text()  # the command line


def test_without_a_workdir_the_traceback_goes_to_the_temporary_folder(tmp_path):
    code, said = end("1 / 0", f"--workdir={tmp_path / 'not_made'}", TMPDIR=str(tmp_path))
    (file,) = tmp_path.iterdir()
    assert code == 1
    assert said.endswith(f"{file}\n")
    assert "ZeroDivisionError" in file.read_text()


def test_with_nowhere_to_write_the_traceback_is_printed():
    code, said = end("import tempfile; tempfile.tempdir = '/nowhere'; 1 / 0")
    assert code == 1
    assert "Traceback" in said
    assert said.splitlines()[-1].startswith("error: unexpected ZeroDivisionError")


def test_ctrl_c_is_no_fault():
    code, said = end("raise KeyboardInterrupt")
    assert code == 130
    assert "interrupted" in said


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_a_flag_that_is_not_finite_is_refused(value):
    code, said = end("pass", f"--share={value}")
    assert (code, said.count("\n")) == (2, 1), said
    assert "--share" in said


def test_a_command_that_a_signal_ended_is_named(tmp_path, capsys):
    """As the kernel ends one that takes too much memory, which cannot say so itself."""
    with cli.only_one_run(tmp_path) as lock:
        cli.run_python("-c pass", lock)
        for body, code, said in (
            ("import os; os.kill(os.getpid(), 9)", 137, "was ended by signal 9 (Killed)"),
            ("raise SystemExit(3)", 3, ""),
        ):
            with pytest.raises(SystemExit) as ended:
                cli.run_python(f"-c '{body}'", lock)
            assert ended.value.code == code
            words = capsys.readouterr().err
            assert (words.count("\n"), said in words) == (bool(said), True)


def test_a_flag_that_nothing_reads_is_refused():
    values = flags.FlagValues()
    shots = flags.DEFINE_integer("shots", 5, "pairs", flag_values=values)
    values(["evaluate"])
    cli.refuse([shots], "a tokenizer alone")
    values(["evaluate", "--shots=3"])
    with pytest.raises(UserError, match="--shots is not for a tokenizer alone: leave it out"):
        cli.refuse([shots], "a tokenizer alone")
