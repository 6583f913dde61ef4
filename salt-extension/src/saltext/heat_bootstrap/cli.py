"""
``heat-bootstrap``: the operator's command on the master.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from typing import Any, Sequence

import salt.config
import salt.syspaths
import salt.utils.verify

from saltext.heat_bootstrap import __version__, config, pins, tokens, views
from saltext.heat_bootstrap.refusals import Unavailable
from saltext.heat_bootstrap.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Does what the command line says; the exit code.
    """
    options = _parser().parse_args(arguments)
    try:
        opts = _opts(options.config_dir)
        settings = config.read(opts)
        store = Store(settings.database, workers=2)
        try:
            return int(options.does(options, settings, store) or 0)
        finally:
            store.close()
    except config.Wrong as wrong:
        for problem in wrong.problems:
            print(f"heat-bootstrap: {problem}", file=sys.stderr)
    except (ValueError, OSError, Unavailable) as error:
        print(f"heat-bootstrap: {error}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
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
    audit.add_argument("--count", type=int, default=50, metavar="N", help="how many (%(default)s)")
    audit.add_argument("--json", action="store_true", help="as JSON")
    audit.set_defaults(does=_audit)

    fleet = verbs.add_parser("fleet", help="how the bootstraps ended")
    fleet.add_argument("--failed", action="store_true", help="only those that failed")
    fleet.add_argument("--since", type=_duration, default=_duration("24h"), metavar="2h", help="how far to look back (24h)")
    fleet.add_argument("--json", action="store_true", help="as JSON")
    fleet.set_defaults(does=_fleet)

    forget = verbs.add_parser("forget", help="let another key in under this id; see salt-key -d for the one that is accepted")
    forget.add_argument("id", metavar="ID")
    forget.set_defaults(does=_forget)

    prune = verbs.add_parser("prune", help="forget what expired long ago")
    prune.add_argument("--older", type=_duration, default=_duration("30d"), metavar="30d", help="than this (30d)")
    prune.set_defaults(does=_prune)
    return parser


def _duration(text: str) -> int:
    try:
        return views.duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _opts(directory: str) -> dict[str, Any]:
    path = os.path.join(directory, "master")
    if not os.path.isfile(path) and not os.path.isdir(path + ".d"):
        raise ValueError(f"there is no {path}; -c names the master's configuration directory")
    opts: dict[str, Any] = salt.config.master_config(path)
    # As Salt's own commands: what root makes here, salt-api has to be able to open.
    if os.geteuid() == 0 and not salt.utils.verify.check_user(opts["user"]):
        raise ValueError(f"user {opts['user']} in {path} does not exist")
    return opts


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
        store.note(connection, now, "create", "created", f"for {pattern} by {_operator()}", token=name)

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
    found = views.fleet(store, options.failed, options.since, time.time())
    if options.json:
        print(json.dumps(found, indent=1))
        return
    rows = []
    for entry in found:
        slowest = max(entry.get("steps") or [["-", 0]], key=lambda step: step[1])
        failure = next(iter(entry.get("failures") or []), None)
        what = f"{failure['sls']}: {failure['id']}: {failure['comment']}" if failure else entry.get("message") or ""
        seconds = f"{entry['seconds']:.0f}" if "seconds" in entry else "-"
        longest = f"{slowest[0]} {slowest[1]:.0f}" if slowest[1] else "-"
        rows.append([entry["id"], entry["time"], entry["verdict"], str(entry.get("code", "-")), seconds, longest, what[:100]])
    _table(["ID", "WHEN", "VERDICT", "CODE", "SECONDS", "LONGEST", "WHAT"], rows)
    verdicts = [entry["verdict"] for entry in found]
    took = [entry["seconds"] for entry in found if entry["verdict"] == "done"]
    summary = f"{verdicts.count('done')} done, {verdicts.count('failed')} failed, {verdicts.count('under way')} under way"
    if took:
        summary += f"; median {statistics.median(took):.0f} s, slowest {max(took):.0f} s"
    print(summary)


def _forget(options: argparse.Namespace, _settings: config.Config, store: Store) -> None:
    def forget(connection: Any) -> bool:
        there = store.forget(connection, options.id)
        if there:
            store.note(connection, time.time(), "forget", "forgotten", f"by {_operator()}", minion=options.id)
        return there

    if not store.write(forget):
        raise ValueError(f"no token has let {options.id} in")
    print(f"{options.id} is forgotten; its key, if accepted, stays so until salt-key -d {options.id}.", file=sys.stderr)


def _prune(options: argparse.Namespace, _settings: config.Config, store: Store) -> None:
    now = time.time()
    counts = store.write(lambda connection: store.prune(connection, int(now) - options.older, now))
    print(", ".join(f"{count} {what}" for what, count in counts.items()) + " forgotten", file=sys.stderr)


def _operator() -> str:
    return os.environ.get("SUDO_USER") or os.environ.get("LOGNAME") or f"uid {os.getuid()}"


def _table(head: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head) - 1)] + [0]
    for row in [head, *rows]:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
