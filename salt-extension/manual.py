"""
Writes heat-bootstrap.8, the manual page, from what the command line may have and from the words below; and the completion for
bash.

    PYTHONPATH=src VENV/bin/python manual.py page >heat-bootstrap.8
    PYTHONPATH=src VENV/bin/python manual.py bash >heat-bootstrap.bash
"""

from __future__ import annotations

import argparse
import re
import sys
from typing import Iterator

from saltext.heat_bootstrap import __version__, cli

DATE = "2026-11-28"
# Where the master's configuration is on a machine that Salt's packages were installed on, whatever this one has
DEFAULTS = {"config_dir": "/etc/salt"}
LONGEST_LINE = 80

ABOUT = """\
The operator's side of the enrolment service for VMs that boot with *heat-salt-bootstrap*: makes the tokens with which they
join this Salt master, and shows what became of them. The service itself is run by salt-api where the master's configuration
has the key *heat_bootstrap*.

Started by root, it works as the user that *user* in the master's configuration names, as Salt's own commands do."""

# What the help of an option is too short for
MORE = {
    "token create": """\
The token alone goes to standard output, and what it is good for to standard error. It is not kept: only its hash is. Make it
where nobody else reads along, and hand it to the VM in its user_data.""",
    "token revoke": "Keys that it let in stay accepted, but no more states are run for them; *salt-key -d* removes a key.",
    "audit": "Each decision, granted or refused, the newest last. Requests by strangers, without a token, are not in it.",
    "fleet": """\
One line for each minion: when its bootstrap was reported, how it ended, the exit code of *heat-salt-bootstrap*, how long it
took, which step took longest, and the failing state; and a summary of all. *no report* stands where the time is up and
nothing was heard: the VM was killed, or has lost its power or its network. A report that comes later takes its place. The
page of *--html* needs neither a server nor a script, and is written in one step with mode 0644 less the umask. FILE has to be
writable by the user that this works as; where it is not, let the shell write it: *--html - >FILE*.""",
    "forget": """\
For one case: several masters share a database, and the key of a machine that is gone was removed by hand and not by the
machine itself.""",
    "prune": """\
Forgets tokens that expired before then, with the record of who came in by them, and reports and audit lines older than that.
The service runs no more states for minions of a forgotten token. Who has renewed a lease since then is not forgotten.

With *--gone* the keys of machines that are gone are removed as well. Only those are looked at that have a lease (*deregister*
is *when-gone*, and the token was made with *--deregister*): who has not renewed it for so long and does not answer a ping
loses its key, and gets it back by itself should it come back. If of those that have renewed theirs none answers either, the
master is not well, and nothing is removed.""",
    "doctor": """\
Looks, as salt-api's user and without changing anything, at the configuration, certificate and key, the database, the service
on this host, the master, where keys are written, known traps in salt-api's own configuration, and the tokens. Each line is
*ok*, *WRONG* with what to do, or *unknown*, which cannot be seen from here. No secret is shown. Whether VMs reach the
service, *heat-salt-bootstrap check* shows on one of them.""",
}

EXAMPLES = (
    ("Ten VMs whose ids begin with web- may join within a day and have one state run:",
     "heat-bootstrap token create 'web-*' --states memcached_v14 --uses 10"),
    ("What failed in the last two hours:", "heat-bootstrap fleet --failed --since 2h"),
    ("The herd on the wall, and in the ticket:", "heat-bootstrap fleet --watch 5\nheat-bootstrap fleet --html - >fleet.html"),
    ("Whose machines are gone, and, if that is right, away with their keys:",
     "heat-bootstrap prune --gone 7d --dry-run\nheat-bootstrap prune --gone 7d"),
    ("Does something need to be done?", "heat-bootstrap doctor"),
)  # fmt: skip


def manual() -> str:
    """The whole page."""
    lines = [f'.TH HEAT-BOOTSTRAP 8 {DATE} "saltext-heat-bootstrap {__version__}"', ".SH NAME"]
    parser = cli.parser()
    lines.append(f"heat\\-bootstrap \\- {_escaped(_small(str(parser.description)))}")
    commands = list(_commands(parser, ""))
    lines.append(".SH SYNOPSIS")
    lines.append(".nf")
    lines += [f"\\fBheat\\-bootstrap\\fR [\\fB\\-c\\fR \\fIDIR\\fR] {_synopsis(name, found)}" for name, found in commands]
    lines += ["\\fBheat\\-bootstrap\\fR \\fB\\-\\-version\\fR", ".fi", ".SH DESCRIPTION", *_prose(ABOUT)]
    lines += [".SH OPTIONS", *_options(parser), ".SH COMMANDS"]
    for name, found in commands:
        lines += [f".SS {_escaped(name)}", *_prose(_sentence(_help(parser, name)))]
        if name in MORE:
            lines += [".PP", *_prose(MORE[name])]
        lines += _options(found)
    lines += [".SH EXIT STATUS"]
    for code, what in (
        ("0", "Done; for *doctor*: nothing is WRONG."),
        ("1", "It could not be done, and standard error says why; for *doctor*: something is WRONG."),
        ("2", "The command line is wrong."),
    ):
        lines += [".TP", code, *_prose(what)]
    lines += [".SH FILES"]
    for path, what in (
        ("/etc/salt/master, /etc/salt/master.d/", "The key *heat_bootstrap*: *ssl_crt*, *ssl_key*, *ssl_chain*, *port*, *host*, "
         "*most_at_once*, *database*."),
        ("/etc/salt/pki/master/heat-bootstrap/heat-bootstrap.sqlite", "The database, unless *database* names another one. "
         "Who can read it can use its tokens."),
    ):  # fmt: skip
        lines += [".TP", f"\\fI{_escaped(path)}\\fR", *_prose(what)]
    lines += [".SH EXAMPLES"]
    for number, (what, command) in enumerate(EXAMPLES):
        lines += [*([".PP"] if number else []), *_prose(what), ".PP", ".nf", ".RS 4"]
        lines += [_escaped(line) for line in command.splitlines()] + [".RE", ".fi"]
    lines += [".SH SEE ALSO", "\\fBheat\\-salt\\-bootstrap\\fR(1),", "\\fBsalt\\-key\\fR(1),", "\\fBsalt\\-api\\fR(1)"]
    return "\n".join(lines) + "\n"


def completion() -> str:
    """For bash: commands, and the options of each."""
    words = dict(_words(cli.parser(), ""))
    paths = "|".join(f'"{path}"' for path in words if path)
    cases = "\n".join(f'    "{path}") words="{" ".join(found)}" ;;' for path, found in words.items())
    return f"""\
# Completion of heat-bootstrap for bash; manual.py has written it.
_heat_bootstrap() {{
    local path="" words="" each
    for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$path $each" in
        {paths}) path="$path $each" ;;
        esac
    done
    case $path in
{cases}
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}")
}}
complete -o default -F _heat_bootstrap heat-bootstrap
"""


def _words(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, list[str]]]:
    words: list[str] = []
    inner: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            inner += action.choices.items()
        else:
            words += action.option_strings
    yield path, [name for name, _ in inner] + words
    for name, found in inner:
        yield from _words(found, f"{path} {name}")


def _commands(parser: argparse.ArgumentParser, before: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, found in action.choices.items():
                inner = list(_commands(found, f"{before}{name} "))
                yield from inner or [(before + name, found)]


def _help(parser: argparse.ArgumentParser, name: str) -> str:
    first, _, rest = name.partition(" ")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            if rest:
                return _help(action.choices[first], rest)
            return str(next(choice.help for choice in action._choices_actions if choice.dest == first))
    raise KeyError(name)


def _arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not isinstance(action, (argparse._SubParsersAction, argparse._HelpAction))]


def _synopsis(name: str, parser: argparse.ArgumentParser) -> str:
    parts = [f"\\fB{_escaped(name)}\\fR"]
    for action in sorted(_arguments(parser), key=lambda action: bool(action.option_strings)):
        part = _term(action, action.option_strings[-1:])
        parts.append(part if not action.option_strings and action.nargs != "?" else f"[{part}]")
    return " ".join(parts)


def _term(action: argparse.Action, names: list[str]) -> str:
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    takes = "" if action.nargs == 0 else f"\\fI{_escaped(str(value))}\\fR"
    if not names:
        return takes
    if action.nargs == "?":
        takes = f"[{takes}]"
    return ", ".join(f"\\fB{_escaped(name)}\\fR" for name in names) + (f" {takes}" if takes else "")


def _options(parser: argparse.ArgumentParser) -> list[str]:
    lines: list[str] = []
    for action in _arguments(parser):
        text = str(action.help or "").replace("%(default)s", str(DEFAULTS.get(action.dest, action.default)))
        if text:
            lines += [".TP", _term(action, list(action.option_strings)), *_prose(_sentence(text))]
    return lines


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?")) else f"{text}."


def _small(text: str) -> str:
    return (text[:1].lower() + text[1:]).rstrip(".")


def _prose(text: str) -> list[str]:
    """Paragraphs in which ``*word*`` is emphasised; each sentence begins a line, as those who read the source like it."""
    lines: list[str] = []
    for number, paragraph in enumerate(text.split("\n\n")):
        lines += [".PP"] if number else []
        for sentence in re.split(r"(?<=[.?]) (?=[A-Z])", paragraph.replace("\n", " ")):
            line = ""
            for word in re.sub(r"\*([^*]+)\*", r"\\fB\1\\fR", sentence).split(" "):
                if line and len(line) + 1 + len(word) > LONGEST_LINE:
                    lines.append(line)
                    line = ""
                shown = _escaped(word, inline=True)
                line = f"{line} {shown}" if line else f"\\&{shown}" if shown.startswith((".", "'")) else shown
            lines.append(line)
    return lines


def _escaped(text: str, *, inline: bool = False) -> str:
    if not inline:
        text = text.replace("\\", "\\e")
    return text.replace("-", "\\-").replace("'", "\\(aq")


if __name__ == "__main__":
    sys.stdout.write({"page": manual, "bash": completion}[sys.argv[1]]())
