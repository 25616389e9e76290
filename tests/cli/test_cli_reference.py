"""Every command has help, and the reference is the help itself.

`python tests/cli/test_cli_reference.py` writes docs/commands.md anew.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from invoking import mnemos_

from mnemos.cli import app

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "commands.md"
# Of `mnemos train`, whose commands are the tasks and differ in nothing else, one stands for all.
COMMANDS = [
    "train text",
    "train copy",
    "train stories",
    *(command.callback.__name__ for command in app.registered_commands),
]


def reference() -> str:
    """docs/commands.md as it should be: the help of every command."""
    head = (
        "# Commands\n\n"
        "Every command has `--help` and `--json`: exactly one JSON object on stdout, progress and errors on "
        'stderr. An error ends with code 1 and, with `--json`, as `{"error": "..."}`; a command that cannot '
        "be understood ends with code 2. Ctrl-C ends with code 130 and leaves a usable store. This page is "
        "written by `python tests/cli/test_cli_reference.py`.\n"
    )
    parts = [
        f"\n## {name}\n\n```text\n{mnemos_(*name.split(), '--help').out.strip()}\n```\n" for name in COMMANDS
    ]
    return head + "".join(parts)


def test_the_reference_is_the_help():
    assert REFERENCE.read_text(encoding="utf-8") == reference(), "run: python tests/cli/test_cli_reference.py"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name):
    done = mnemos_(*name.split(), "--help")
    assert done.code == 0
    assert f"Example: mnemos {name}" in " ".join(done.out.split())
    assert "--json" in done.out


def test_the_command_line_loads_no_library_that_takes_long():
    heavy = {"lightning", "tokenizers", "matplotlib", "faiss"}
    code = f"import sys, mnemos.cli; sys.exit(bool({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_cannot_be_understood_ends_with_code_two():
    assert mnemos_("inspect").code == 2
    assert mnemos_("dream").code == 2


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
