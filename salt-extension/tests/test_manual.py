"""
The manual page is what the command line has, and no reader of manual pages finds fault with it.
"""

from __future__ import annotations

import importlib.util
import pathlib
import shutil
import subprocess
import warnings
from typing import Any

import pytest

HERE = pathlib.Path(__file__).parent.parent
PAGE = HERE / "heat-bootstrap.8"
COMPLETION = HERE / "heat-bootstrap.bash"


def manual() -> Any:
    spec = importlib.util.spec_from_file_location("manual", HERE / "manual.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_up_to_date() -> None:
    assert PAGE.read_text() == manual().manual(), "manual.py page >heat-bootstrap.8 makes it anew"
    assert COMPLETION.read_text() == manual().completion(), "manual.py bash >heat-bootstrap.bash makes it anew"


def test_all_is_in_it() -> None:
    made = manual()
    text = PAGE.read_text().replace("\\-", "-")
    commands = dict(made._commands(made.cli.parser(), ""))
    assert {"token create", "fleet", "doctor", "prune"} <= set(commands) and set(made.MORE) <= set(commands)
    for name, parser in commands.items():
        assert f".SS {name}\n" in text
        for action in made._arguments(parser):
            assert all(option in text for option in action.option_strings)
    assert "%(" not in text and "/etc/salt)" in text


@pytest.mark.parametrize(
    "reader", [("mandoc", "-T", "lint", "-W", "warning"), ("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z")]
)
def test_readers_find_no_fault(reader: tuple[str, ...]) -> None:
    if shutil.which(reader[0]) is None or (reader[0] == "man" and shutil.which("groff") is None):
        warnings.warn(f"{reader[0]} is not installed, so it has not read the manual page", stacklevel=1)
        pytest.skip(f"{reader[0]} is not installed")
    done = subprocess.run([*reader, str(PAGE)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    if reader[0] == "mandoc":
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("heat-bootstrap do", {"doctor"}),
        ("heat-bootstrap token ", {"create", "list", "revoke", "-h", "--help"}),
        ("heat-bootstrap -c /etc/salt token create web-1 --re", {"--rebuild"}),
        ("heat-bootstrap fleet --w", {"--watch"}),
    ],
)
def test_completion(typed: str, offered: set[str]) -> None:
    words = " ".join(f"'{word}'" for word in typed.split(" "))
    script = f". {COMPLETION}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _heat_bootstrap"
    done = subprocess.run(
        ["bash", "-euc", f'{script}; printf "%s\\n" "${{COMPREPLY[@]}}"'], capture_output=True, text=True, check=True, timeout=60
    )
    assert set(done.stdout.split()) == offered
