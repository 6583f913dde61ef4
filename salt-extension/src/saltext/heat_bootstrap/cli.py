"""
``heat-bootstrap``: the operator's command on the master.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import stat
import sys
import tempfile
import time
from dataclasses import asdict
from typing import Any, Sequence

import salt.config
import salt.syspaths
import salt.utils.verify

from saltext.heat_bootstrap import __version__, config, doctor, gone, page, pins, tokens, views
from saltext.heat_bootstrap.announce import Announcer
from saltext.heat_bootstrap.keys import Keys, identity
from saltext.heat_bootstrap.refusals import Unavailable
from saltext.heat_bootstrap.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Does what the command line says; the exit code.
    """
    options = parser().parse_args(arguments)
    try:
        opts = _opts(options.config_dir)
        if options.does == _doctor:
            return _doctor(options, opts)
        options.master, options.opts = opts["id"], opts
        _become(opts)
        settings = config.read(opts)
        store = Store(settings.database, workers=2)
        try:
            options.does(options, settings, store)
            return 0
        finally:
            store.close()
    except config.Wrong as wrong:
        for problem in wrong.problems:
            print(f"heat-bootstrap: {problem}", file=sys.stderr)
    except (ValueError, OSError, Unavailable) as error:
        print(f"heat-bootstrap: {error}", file=sys.stderr)
    return 1


def parser() -> argparse.ArgumentParser:
    """
    What the command line may have; the manual page is made of it, too.
    """
    parser = argparse.ArgumentParser(
        prog="heat-bootstrap", description="Tokens with which VMs join this Salt master, and what became of them."
    )
    parser.add_argument("--version", action="version", version=f"heat-bootstrap {__version__}")
    parser.add_argument(
        "-c",
        "--config-dir",
        metavar="DIR",
        default=salt.syspaths.CONFIG_DIR,
        help="the master's configuration directory (%(default)s)",
    )
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)

    token = verbs.add_parser("token", help="make, list and revoke tokens").add_subparsers(metavar="COMMAND", required=True)
    create = token.add_parser("create", help="make a token and print it; it cannot be shown again")
    create.add_argument("pattern", metavar="ID-PATTERN", help="the minion id it is good for, or a pattern such as 'web-*'")
    create.add_argument("--states", default="", metavar="A,B", help="states that may be run with it, joined by commas")
    create.add_argument("--uses", type=int, default=1, metavar="N", help="how many keys it lets in (%(default)s)")
    create.add_argument(
        "--expires", type=_duration, default=_duration("24h"), metavar="24h", help="how long it is good for (24h)"
    )
    create.add_argument("--rebuild", action="store_true", help="it may replace the accepted key of a VM that was built anew")
    create.add_argument("--deregister", action="store_true", help="who came in with it may remove its own key")
    create.add_argument(
        "--pin",
        choices=("key", "ca", "none"),
        default="key",
        help="by what the VM knows this service: its certificate's key (default), or a CA",
    )
    create.set_defaults(does=_create)
    listing = token.add_parser("list", help="all tokens, without what proves them")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(does=_list)
    revoke = token.add_parser("revoke", help="make a token worthless, also for who came in with it")
    revoke.add_argument("name", metavar="NAME", help="its name, which is what stands between its dots")
    revoke.set_defaults(does=_revoke)

    audit = verbs.add_parser("audit", help="the last decisions")
    audit.add_argument("id", nargs="?", metavar="ID", help="only those about this minion")
    audit.add_argument("--count", type=_count, default=50, metavar="N", help="how many (%(default)s)")
    audit.add_argument("--json", action="store_true", help="as JSON")
    audit.set_defaults(does=_audit)

    fleet = verbs.add_parser("fleet", help="how the bootstraps ended")
    fleet.add_argument(
        "--failed", action="store_true", help="only those that failed, and those whose time is up and who have not reported"
    )
    fleet.add_argument("--since", type=_duration, default=_duration("24h"), metavar="2h", help="how far to look back (24h)")
    form = fleet.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument(
        "--watch",
        type=_seconds,
        nargs="?",
        const=2.0,
        metavar="SECONDS",
        help="on a terminal, again every so often (2), until ^C",
    )
    form.add_argument("--html", metavar="FILE", help="one page with the timeline, into this file; - is standard output")
    fleet.set_defaults(does=_fleet)

    forget = verbs.add_parser("forget", help="let another key in under this id; see salt-key -d for the one that is accepted")
    forget.add_argument("id", metavar="ID")
    forget.set_defaults(does=_forget)

    prune = verbs.add_parser("prune", help="forget what expired long ago, and remove the keys of machines that are gone")
    prune.add_argument("--older", type=_duration, default=_duration("30d"), metavar="30d", help="forget what is older (30d)")
    prune.add_argument(
        "--gone",
        type=_duration,
        metavar="7d",
        help="remove keys of machines that had a lease, have not renewed it for so long, and do not answer a ping",
    )
    prune.add_argument("--dry-run", action="store_true", help="with --gone: only show whose lease has run out")
    prune.set_defaults(does=_prune)

    examine = verbs.add_parser("doctor", help="look whether VMs can bootstrap by this master, and say what to do if not")
    examine.add_argument("--json", action="store_true", help="as JSON")
    examine.set_defaults(does=_doctor)
    return parser


def _duration(text: str) -> int:
    try:
        return views.duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100000:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 100000")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.1 to 86400")
    return seconds


def _opts(directory: str) -> dict[str, Any]:
    path = os.path.join(directory, "master")
    if not os.path.isfile(path) and not os.path.isdir(path + ".d"):
        raise ValueError(f"there is no {path}; -c names the master's configuration directory")
    opts: dict[str, Any] = salt.config.master_config(path)
    return opts


def _become(opts: dict[str, Any]) -> None:
    """As Salt's own commands: what root makes here, salt-api has to be able to open."""
    if os.geteuid() == 0 and not salt.utils.verify.check_user(opts["user"]):
        raise ValueError(f"user {opts['user']} in {opts['conf_file']} does not exist")


def _create(options: argparse.Namespace, settings: config.Config, store: Store) -> None:
    if options.uses < 1 or options.uses > 10_000_000:
        raise ValueError("--uses has to be from 1 to 10000000")
    pattern = tokens.checked_pattern(options.pattern)
    states = tokens.checked_states(name for name in options.states.split(",") if name)
    pin = "" if options.pin == "none" else pins.pin(options.pin, settings.ssl_crt, settings.ssl_chain)
    name, text, digest = tokens.new()
    now = int(time.time())
    token = tokens.Token(
        name=name,
        digest=digest,
        pattern=pattern,
        states=states,
        uses=options.uses,
        used=0,
        created=now,
        expires=now + options.expires,
        rebuild=options.rebuild,
        deregister=options.deregister,
        revoked=False,
    )

    def add(connection: Any) -> None:
        store.add_token(connection, token)
        store.note(connection, now, "create", "created", f"for {pattern} by {_operator()}, pin {options.pin}", token=name)

    store.write(add)
    print(f"{text}.{pin}" if pin else text)
    rights = [right for right, has in (("replace accepted keys", token.rebuild), ("deregister", token.deregister)) if has]
    trust = {
        "key": f"the VM knows this service by the public key in {settings.ssl_crt}; make new tokens when that key changes",
        "ca": "the VM knows this service by its name and the pinned CA",
        "none": "the VM knows this service by enroll.ca or its system's CAs",
    }
    print(
        f"Token {name}: {token.uses} key{'s' if token.uses != 1 else ''} for {pattern} until {views.moment(token.expires)}, "
        f"states {', '.join(states) or 'none'}{', may ' + ' and '.join(rights) if rights else ''}; {trust[options.pin]}.",
        file=sys.stderr,
    )


def _list(options: argparse.Namespace, _settings: config.Config, store: Store) -> None:
    found = views.tokens(store, time.time())
    if options.json:
        print(json.dumps(found, indent=1))
        return
    rows = [
        [
            token["name"],
            token["is"],
            f"{token['used']}/{token['uses']}",
            token["expires"],
            token["id"],
            ",".join(token["states"]) + "".join(f" +{right}" for right in ("rebuild", "deregister") if token[right]),
        ]
        for token in found
    ]
    _table(["NAME", "IS", "USED", "EXPIRES", "FOR", "STATES"], rows)


def _revoke(options: argparse.Namespace, _settings: config.Config, store: Store) -> None:
    name = tokens.name_in(options.name)

    def revoke(connection: Any) -> bool:
        there = store.revoke(connection, name)
        if there:
            store.note(connection, time.time(), "revoke", "revoked", f"by {_operator()}", token=name)
        return there

    if not store.write(revoke):
        raise ValueError(f"there is no token {name}; see: heat-bootstrap token list")
    print(f"Token {name} is revoked. Keys that it let in stay accepted; see salt-key -d.", file=sys.stderr)


def _audit(options: argparse.Namespace, _settings: config.Config, store: Store) -> None:
    lines = views.audit(store, options.id, options.count)
    if options.json:
        print(json.dumps(lines, indent=1))
        return
    rows = [
        [line["time"], line["verb"], line["word"], line["id"] or "-", line["token"] or "-", line["peer"] or "-", line["why"]]
        for line in lines
    ]
    _table(["TIME", "VERB", "ANSWER", "ID", "TOKEN", "FROM", "WHY"], rows)


def _fleet(options: argparse.Namespace, _settings: config.Config, store: Store) -> None:
    if options.watch is not None:
        _watch(options, store)
    elif options.html is not None:
        _html(options, store)
    elif options.json:
        print(json.dumps(views.fleet(store, options.failed, options.since, time.time()), indent=1))
    else:
        print("\n".join(_fleet_lines(views.fleet(store, options.failed, options.since, time.time()))))


def _fleet_lines(found: Sequence[dict[str, Any]]) -> list[str]:
    rows = []
    for entry in found:
        longest = views.longest(entry)
        failure = next(iter(entry.get("failures") or []), None)
        what = f"{failure['sls']}: {failure['id']}: {failure['comment']}" if failure else entry.get("message") or ""
        seconds = f"{entry['seconds']:.0f}" if "seconds" in entry else "-"
        slowest = f"{longest[0]} {longest[1]:.0f}" if longest else "-"
        what = "; ".join(text for text in (what[:100], entry.get("note")) if text)
        rows.append([entry["id"], entry["time"], entry["verdict"], str(entry.get("code", "-")), seconds, slowest, what])
    return [*_lines(["ID", "WHEN", "VERDICT", "CODE", "SECONDS", "LONGEST", "WHAT"], rows), str(views.Summary.of(found))]


def _watch(options: argparse.Namespace, store: Store) -> None:
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        raise ValueError("--watch needs a terminal that can be cleared; without one: heat-bootstrap fleet")
    # Clear, and home; from then on only home, so that nothing flickers.
    sys.stdout.write("\x1b[2J\x1b[H")
    try:
        while True:
            try:
                lines = _fleet_lines(views.fleet(store, options.failed, options.since, time.time()))
            except Unavailable as error:
                # It may be there again the next time.
                lines = ["", f"heat-bootstrap: {error}"]
            # The terminal's own size: COLUMNS and LINES may be those of another one. A serial line knows none.
            size = os.get_terminal_size(sys.stdout.fileno())
            sys.stdout.write("\x1b[H" + "\x1b[K\n".join(_fitting(lines, size.columns or 80, size.lines or 24)) + "\x1b[K\x1b[J")
            sys.stdout.flush()
            time.sleep(options.watch)
    except KeyboardInterrupt:
        print()


def _fitting(lines: list[str], columns: int, rows: int) -> list[str]:
    """Head and summary, and of what is between them the newest that there is room for."""
    now = time.strftime("%H:%M:%S UTC", time.gmtime())
    head, body, summary = lines[0], lines[1:-1], f"{lines[-1]}  ({now})"
    room = max(rows - 2, 0)
    if len(body) > room:
        room = max(room - 1, 0)
        body = [f"... and {len(body) - room} older", *body[len(body) - room :]]
    return [page.cut(line, columns - 1) for line in [head, *body, summary]]


def _html(options: argparse.Namespace, store: Store) -> None:
    now = time.time()
    found = views.herd(store, options.failed, options.since, now)
    kind = "Failed bootstraps" if options.failed else "Bootstraps"
    title = f"{kind} since {views.moment(int(now) - options.since)}"
    content = page.page(found, title, str(options.master), now).encode("utf-8", "backslashreplace")
    if options.html == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    try:
        _write(options.html, content)
    except PermissionError as error:
        by = pwd.getpwuid(os.geteuid()).pw_name
        raise ValueError(f"{options.html}: {by} may not write there; - is standard output: --html - >FILE") from error
    except OSError as error:
        # The error names the new file beside it.
        raise ValueError(f"{options.html} cannot be written: {error.strerror}") from error


def _write(path: str, content: bytes) -> None:
    """All of it or nothing: whoever looks at the file meanwhile sees the old one."""
    path = os.path.realpath(path)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError(f"{path} is no file; - is standard output")
    umask = os.umask(0)
    os.umask(umask)
    handle, new = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)[:100]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(handle, 0o644 & ~umask)
            os.fsync(handle)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(new)
        raise


def _doctor(options: argparse.Namespace, opts: dict[str, Any]) -> int:
    # Before it becomes another user: files of the configuration may be root's alone.
    files = doctor.sources(opts)
    _become(opts)
    user = pwd.getpwuid(os.geteuid()).pw_name
    if user != opts["user"]:
        who = " or ".join(dict.fromkeys(("root", str(opts["user"]))))
        raise ValueError(f"doctor looks with the eyes of salt-api's user: run it as {who}, not as {user}")
    findings = doctor.look(opts, files, time.time())
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        _show(findings)
    return 1 if any(finding.verdict == "WRONG" for finding in findings) else 0


def _show(findings: Sequence[doctor.Finding]) -> None:
    wide = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"{finding.verdict:7}  {finding.what:{wide}}  {views.shown(finding.says)}")
        if finding.do:
            print(f"{'':7}  {'':{wide}}  -> {views.shown(finding.do)}")
    verdicts = [finding.verdict for finding in findings]
    print(f"{verdicts.count('ok')} ok, {verdicts.count('WRONG')} WRONG, {verdicts.count('unknown')} unknown")


def _forget(options: argparse.Namespace, _settings: config.Config, store: Store) -> None:
    def forget(connection: Any) -> bool:
        there = store.forget(connection, options.id)
        if there:
            store.note(connection, time.time(), "forget", "forgotten", f"by {_operator()}", minion=options.id)
        return there

    if not store.write(forget):
        raise ValueError(f"no token has let {options.id} in")
    print(f"{options.id} is forgotten; its key, if accepted, stays so until salt-key -d {options.id}.", file=sys.stderr)


def _prune(options: argparse.Namespace, settings: config.Config, store: Store) -> None:
    now = time.time()
    if options.dry_run and options.gone is None:
        raise ValueError("--dry-run shows what --gone would do: give both")
    if options.gone is not None:
        _remove_gone(options, settings, store, now)
    if options.dry_run:
        return
    counts = store.write(lambda connection: store.prune(connection, int(now) - options.older, now))
    print(", ".join(f"{count} {what}" for what, count in counts.items()) + " forgotten", file=sys.stderr)


def _remove_gone(options: argparse.Namespace, settings: config.Config, store: Store, now: float) -> None:
    keys = Keys(options.opts, settings.directory)
    silent = gone.silent(store, keys, int(now) - options.gone, gone.ping_by_salt(options.opts))
    if options.dry_run:
        rows = [
            [one.record.id, views.moment(one.renewed), "stays: it answers" if one.answers else "would be removed"]
            for one in silent
        ]
        _table(["ID", "RENEWED", "KEY"], rows)
        return
    announcer, master = Announcer(options.opts), identity(settings.directory)
    try:
        for one in silent:
            if one.answers:
                print(f"{one.record.id} stays: its lease has run out, but it answers", file=sys.stderr)
            elif gone.remove(store, keys, master, one, now, announcer.say):
                print(f"{one.record.id} is gone: its key is removed", file=sys.stderr)
    finally:
        announcer.close(wait=True)


def _operator() -> str:
    return os.environ.get("SUDO_USER") or os.environ.get("LOGNAME") or f"uid {os.getuid()}"


def _table(head: list[str], rows: list[list[str]]) -> None:
    print("\n".join(_lines(head, rows)))


def _lines(head: list[str], rows: list[list[str]]) -> list[str]:
    # What VMs say must not get at the terminal.
    rows = [head, *([views.shown(text) for text in row] for row in rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)] + [0]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]


if __name__ == "__main__":
    sys.exit(main())
