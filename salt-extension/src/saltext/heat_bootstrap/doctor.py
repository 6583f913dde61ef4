"""
Looks whether VMs can bootstrap by this master, and says what to do where they cannot. Changes nothing, and shows no secret.
"""

from __future__ import annotations

import contextlib
import datetime
import fnmatch
import glob
import hashlib
import http.client
import ipaddress
import json
import logging
import os
import pwd
import ssl
import time
from dataclasses import dataclass
from typing import Any, Callable, Iterator

import salt.channel.client
import salt.exceptions
import salt.utils.yaml
import salt.version
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from saltext.heat_bootstrap import __version__, config, pins, views
from saltext.heat_bootstrap.claims import MOST_SKEW
from saltext.heat_bootstrap.keys import DRIVER, Keys
from saltext.heat_bootstrap.refusals import Unavailable
from saltext.heat_bootstrap.store import SCHEMA, SPARE_NAME, Store
from saltext.heat_bootstrap.tokens import Token

# For each answer of the service and of the master
PATIENCE = 5.0
# A certificate's end is near.
SOON = datetime.timedelta(days=14)
DAY = 86400
# On one machine there is one clock; what is more is neither rounding nor load.
MOST_SECONDS_OFF = 5
STATE_DIRECTORIES = ("minions", "minions_pre", "minions_rejected", "minions_denied")
# Keys that a site's own files are likely to have as well
SHARED_KEYS = ("reactor", "external_auth", "rest_cherrypy", "netapi_enable_clients", config.KEY)
HOOKS = "salt/netapi/hook"


@dataclass(frozen=True)
class Finding:
    """
    What was looked at, what was found, and what to do.
    """

    what: str
    # ok, WRONG or unknown
    verdict: str
    says: str
    do: str | None = None


@dataclass(frozen=True)
class Source:
    """
    One file of the master's configuration; ``None`` where it cannot be read.
    """

    path: str
    keys: dict[str, Any] | None


def ok(what: str, says: str) -> Finding:
    """Nothing is to be done."""
    return Finding(what, "ok", says)


def wrong(what: str, says: str, do: str) -> Finding:
    """VMs cannot bootstrap, soon cannot, or something lies open."""
    return Finding(what, "WRONG", says, do)


def unknown(what: str, says: str, do: str | None = None) -> Finding:
    """It cannot be seen from here."""
    return Finding(what, "unknown", says, do)


def sources(opts: dict[str, Any]) -> list[Source]:
    """
    The files that the master's configuration was read from, in Salt's order. Root may be the only one who can read them.
    """
    found: list[Source] = []

    def add(pattern: str, beside: str) -> None:
        pattern = os.path.join(os.path.dirname(beside), os.path.expanduser(pattern))
        for path in sorted(glob.glob(pattern)):
            if path in [source.path for source in found]:
                continue
            keys: dict[str, Any] | None = None
            try:
                with open(path, encoding="utf-8") as file:
                    # A file of comments has no keys.
                    content = salt.utils.yaml.safe_load(file) or {}
                keys = content if isinstance(content, dict) else None
            except (OSError, UnicodeError, salt.utils.yaml.YAMLError):
                pass
            found.append(Source(path, keys))
            included = (keys or {}).get("include") or []
            for other in [included] if isinstance(included, str) else included:
                add(str(other), path)

    main = str(opts["conf_file"])
    # Salt reads what the main file includes by itself after what lies in the directory.
    directory = opts.get("default_include") or []
    for pattern in [directory] if isinstance(directory, str) else directory:
        add(pattern, main)
    add(glob.escape(main), main)
    return found


def look(opts: dict[str, Any], files: list[Source], now: float) -> list[Finding]:
    """
    All of it, as the user that runs this: that has to be salt-api's.
    """
    findings: list[Finding] = []

    def see(what: str, looked: Callable[[], Iterator[Finding]]) -> None:
        try:
            findings.extend(looked())
        except Exception as error:  # what cannot be looked at is said, and the rest is looked at all the same
            findings.append(unknown(what, f"cannot be looked at: {type(error).__name__}: {error}"))

    settings = None
    try:
        settings = config.read(opts)
        findings.append(ok("configuration", f"{config.KEY} is valid; files: {', '.join(source.path for source in files)}"))
    except config.Wrong as problems:
        for problem in problems.problems:
            findings.append(wrong("configuration", problem, "Correct it, and restart salt-api."))
    if settings is not None:
        known = settings
        store = Store(known.database, workers=1, as_is=True)
        # How each of the good tokens was pinned
        pinned: list[str] | None = None

        def tokens() -> Iterator[Finding]:
            nonlocal pinned
            if not _is_there(known):
                pinned = []
                return
            with contextlib.suppress(Unavailable), store.read() as connection:
                if store.schema(connection) == SCHEMA:
                    all_tokens, made = store.tokens(connection), store.created(connection)
                    good = [token for token in all_tokens if token.trouble(now) is None]
                    pinned = [made.get(token.name, "").rpartition(", pin ")[2] for token in good]
                    yield _tokens(all_tokens, now)

        try:
            see("database", lambda: _database(known, store))
            see("tokens", tokens)
            see("keys", lambda: _several_names(opts, known, store))
        finally:
            store.close()
        see("certificate", lambda: _certificate(known, pinned, now))
        see("service", lambda: _service(known, now))
    see("master", lambda: _master(opts, settings))
    see("keys", lambda: _keys(opts, settings))
    see("salt-api", lambda: _salt_api(opts, settings))
    see("files", lambda: _files(opts, files))
    return findings


# The database


def _database(settings: config.Config, store: Store) -> Iterator[Finding]:
    url = sa.engine.make_url(settings.database)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite":
        shown = url.database or ""
        if not _is_there(settings):
            yield unknown("database", f"{shown} is not there yet", "The service makes it when it is first asked.")
            return
        yield from _modes(shown)
    try:
        with store.read() as connection:
            schema = store.schema(connection)
        if schema is None:
            yield unknown("database", f"{shown} has no tables yet", "The service makes them when it is first asked.")
            return
        if schema != SCHEMA:
            yield wrong(
                "database",
                f"{shown} has schema {schema}, this version knows {SCHEMA}",
                "Install the version of the extension that wrote it, or a newer one.",
            )
            return
        store.try_to_write()
    except Unavailable as error:
        yield wrong("database", f"{shown}: {error}", "No VM can enrol until it can be read and written.")
        return
    yield ok("database", f"{shown} opens, has schema {schema} and may be written")


def _is_there(settings: config.Config) -> bool:
    url = sa.engine.make_url(settings.database)
    return url.get_backend_name() != "sqlite" or os.path.exists(url.database or "")


def _modes(path: str) -> Iterator[Finding]:
    """Who can read the file can prove to have each of the tokens; who can write in the directory can put another in its place."""
    problems = []
    for part in (path, f"{path}-wal", f"{path}-shm"):
        with contextlib.suppress(FileNotFoundError):
            mode = os.stat(part).st_mode & 0o777
            if mode & 0o077:
                problems.append(wrong("database", f"{part} has mode {mode:04o}: others get at the tokens", f"chmod 0600 {part}"))
    directory = os.path.dirname(os.path.abspath(path))
    mode = os.stat(directory).st_mode & 0o777
    if mode & 0o022:
        problems.append(
            wrong("database", f"{directory} has mode {mode:04o}: others can put files there", f"chmod 0700 {directory}")
        )
    yield from problems or [ok("database", f"{path} and its directory have modes that keep others out")]


def _tokens(found: list[Token], now: float) -> Finding:
    kinds = [token.trouble(now) or "good" for token in found]
    soon = len([token for token, kind in zip(found, kinds) if kind == "good" and token.expires - now < DAY])
    says = f"{kinds.count('good')} good, {soon} of them expiring within a day; {kinds.count('used-up')} used up"
    says += f", {kinds.count('expired')} expired, {kinds.count('revoked')} revoked"
    return ok(
        "tokens", says if "good" in kinds else f"{says}: no new VM can enrol until there is one (heat-bootstrap token create)"
    )


# The certificate


def _certificate(settings: config.Config, pinned: list[str] | None, now: float) -> Iterator[Finding]:
    user = _user()
    problems = config.unreadable(settings)
    for problem in problems:
        yield wrong("certificate", f"{problem} (as {user})", f"Name the right file, and let {user} read it.")
    if problems:
        return
    try:
        certificate = pins.certificates(settings.ssl_crt)[0]
        if settings.ssl_chain:
            pins.certificates(settings.ssl_chain)
    except ValueError as error:
        yield wrong("certificate", str(error), "Put a certificate in PEM form there.")
        return
    yield _belongs_together(settings, certificate)
    mode = os.stat(settings.ssl_key).st_mode & 0o777
    if mode & 0o007:
        yield wrong(
            "certificate", f"{settings.ssl_key} has mode {mode:04o}: everybody can read the key", f"chmod o= {settings.ssl_key}"
        )
    yield _time(settings, certificate, pinned, datetime.datetime.fromtimestamp(now, datetime.timezone.utc))
    names = _names(certificate)
    if names:
        yield ok(
            "certificate", f"is for {', '.join(names)}; tokens made with --pin ca or none need enroll.url to have one of these"
        )
    else:
        says = "has no subjectAltName; only VMs whose tokens pin the key can take it"
        yield unknown(
            "certificate", says, "Fine with token create's own --pin key; --pin ca and none need a certificate with names."
        )


def _belongs_together(settings: config.Config, certificate: x509.Certificate) -> Finding:
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with open(settings.ssl_key, "rb") as file:
        content = file.read()
    try:
        private = serialization.load_pem_private_key(content, password=None)
    except TypeError:
        says = f"{settings.ssl_key} is encrypted, and nobody can ask for its password"
        return wrong(
            "certificate", says, "Take the password off (openssl pkey), and keep the file readable for salt-api's user only."
        )
    except Exception:  # several kinds, and none says more
        return wrong(
            "certificate", f"{settings.ssl_key} is no private key in PEM form", "Name the key that ssl_crt was made for."
        )
    if private.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        says = f"{settings.ssl_crt} and {settings.ssl_key} do not belong together"
        return wrong("certificate", says, "Name the key of the first certificate in ssl_crt.")
    return ok("certificate", f"{settings.ssl_crt} and {settings.ssl_key} belong together, and {_user()} can read them")


def _time(settings: config.Config, certificate: x509.Certificate, pinned: list[str] | None, now: datetime.datetime) -> Finding:
    begin, end = _utc(certificate, "not_valid_before"), _utc(certificate, "not_valid_after")
    if begin <= now < end - SOON:
        return ok("certificate", f"is valid until {end:%Y-%m-%d}")
    says = f"{settings.ssl_crt} is valid from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
    says += ", which is soon" if begin <= now < end else ", which is not now"
    do = "Renew it; with the same key, since tokens may pin that."
    if pinned is not None and any(pin in ("ca", "none") for pin in pinned):
        return wrong("certificate", f"{says}; tokens made with --pin ca or none need it to be", do)
    if pinned is not None and all(pin == "key" for pin in pinned):
        return ok("certificate", f"{says}; none of the good tokens minds, since they pin its key")
    return unknown("certificate", f"{says}; tokens that pin its key do not mind, and whether there are others is not known", do)


def _utc(certificate: x509.Certificate, what: str) -> datetime.datetime:
    # Older versions of cryptography have it without a time zone only.
    moment = getattr(certificate, f"{what}_utc", None) or getattr(certificate, what).replace(tzinfo=datetime.timezone.utc)
    if not isinstance(moment, datetime.datetime):
        raise TypeError(what)
    return moment


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address | Any] = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *(str(address) for address in addresses)]


# The service


def _service(settings: config.Config, now: float) -> Iterator[Finding]:
    restart = "Start salt-api; if it runs, its log says what is wrong (look for heat_bootstrap)."
    wildcard = settings.host in ("", "0.0.0.0", "::")  # noqa: S104 - to connect to, not to listen on
    hosts = ("127.0.0.1", "::1") if wildcard else (settings.host,)
    troubles = []
    for host in hosts:
        where = f"{host} port {settings.port}"
        try:
            der, answer = _asked(host, settings.port)
            break
        except ssl.SSLError as error:
            yield wrong("service", f"what listens on {where} does not speak TLS as it should: {error.reason or error}", restart)
            return
        except (http.client.HTTPException, ValueError) as error:
            yield wrong(
                "service", f"what listens on {where} is something else: {type(error).__name__}", "Give one of them another port."
            )
            return
        except OSError as error:
            troubles.append(f"{where}: {error.strerror or error}")
    else:
        yield wrong("service", f"nothing answers on {'; '.join(troubles)}", restart)
        return
    if answer.get("service") != "heat-salt-bootstrap":
        yield wrong("service", f"what listens on {where} is something else", "Give one of them another port.")
        return
    yield ok("service", f"answers on {where}; whether VMs reach it, heat-salt-bootstrap check shows on one of them")
    with contextlib.suppress(ValueError, OSError):
        configured = pins.key_hash(pins.certificates(settings.ssl_crt)[0])
        if pins.key_hash(x509.load_der_x509_certificate(der)) == configured:
            yield ok("service", f"shows the key of {settings.ssl_crt}, which tokens pin as s{configured}")
        else:
            says = f"shows another key than that of {settings.ssl_crt}: tokens made from now on are no good"
            yield wrong("service", says, "A changed certificate is loaded within a minute; if not, restart salt-api.")
    version = answer.get("version")
    if version == __version__:
        yield ok("service", f"has the version of the installed extension, {__version__}")
    else:
        says = f"has version {str(version)[:40]}, and the installed extension {__version__}"
        yield wrong("service", says, "Restart salt-api.")
    there = answer.get("time")
    off = max(now - there, there - time.time()) if isinstance(there, int) else None
    if off is None or off > MOST_SECONDS_OFF:
        says = "tells no time" if off is None else f"has a clock that is {off:.0f} s off"
        yield wrong("service", says, f"VMs may be off by {MOST_SKEW} s at most; restart salt-api.")
    else:
        clock = f"tells the time of this host, {views.moment(int(now))}"
        yield ok("service", f"{clock}; VMs whose clocks are more than {MOST_SKEW} s off are refused")


def _asked(host: str, port: int) -> tuple[bytes, dict[str, Any]]:
    """The certificate, and what the service says of itself."""
    # Nothing is believed of what is said, and nothing said: the key is compared afterwards.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host, port, timeout=PATIENCE, context=context)
    try:
        connection.connect()
        sock = connection.sock
        der = sock.getpeercert(True) if isinstance(sock, ssl.SSLSocket) else None
        connection.request("GET", "/v1/status")
        answer = json.loads(connection.getresponse().read(65536))
    finally:
        connection.close()
    if not isinstance(answer, dict):
        raise ValueError("no object")
    return der or b"", answer


# The master


def _master(opts: dict[str, Any], settings: config.Config | None) -> Iterator[Finding]:
    directory = settings.directory if settings is not None else os.path.join(opts["pki_dir"], "heat-bootstrap")
    try:
        text = Keys(opts, directory).master_public_key()
        digest = hashlib.sha256(("\n".join(text.splitlines()[1:-1]) + "\n").encode()).hexdigest()
        yield ok("master", f"its public key is there: {':'.join(digest[at : at + 2] for at in range(0, 64, 2))}")
    except Unavailable as error:
        yield wrong("master", str(error), "salt-master makes it when it first starts.")
    start = "Start salt-master; its log says what is wrong."
    if opts.get("ipc_mode", "") != "tcp":
        path = os.path.join(opts["sock_dir"], "publish_pull.ipc")
        if not os.path.exists(path):
            yield wrong("master", f"does not run, or has another sock_dir: there is no {path}", start)
            return
    # What salt-api shows the master when it publishes; LocalClient goes on without it, and is refused.
    secret = os.path.join(opts["cachedir"], f".{opts['user']}_key")
    if not os.access(secret, os.R_OK, effective_ids=_EFFECTIVE):
        yield wrong("master", f"{secret} is not there or may not be read: {_user()} can publish no job", "Restart salt-master.")
    try:
        answer = _ping(opts)
    except (salt.exceptions.SaltException, OSError) as error:
        yield wrong("master", f"does not answer within {PATIENCE:.0f} s: {type(error).__name__}", start)
        return
    if isinstance(answer, dict) and answer.get("cmd") == "ping":
        yield ok("master", f"runs and answers on port {opts['ret_port']}")
    else:
        yield unknown("master", f"something else than a Salt master answers on port {opts['ret_port']}")


def _ping(opts: dict[str, Any]) -> Any:
    """As LocalClient asks; the master sends it back, and does nothing else."""
    interface = str(opts["interface"])
    uri = f"tcp://{f'[{interface}]' if ':' in interface else interface}:{opts['ret_port']}"
    # Salt logs what the finding says.
    logging.disable(logging.CRITICAL)
    try:
        with salt.channel.client.ReqChannel.factory(dict(opts), crypt="clear", master_uri=uri) as channel:
            return channel.send({"cmd": "ping"}, tries=1, timeout=max(1, int(PATIENCE)))
    finally:
        logging.disable(logging.NOTSET)


# What is written


_EFFECTIVE = os.access in os.supports_effective_ids


def _keys(opts: dict[str, Any], settings: config.Config | None) -> Iterator[Finding]:
    user = _user()
    directories = [opts["cachedir"]]
    driver = opts.get(DRIVER)
    if driver in (None, "localfs_key"):
        pki = opts["cluster_pki_dir"] if driver and opts.get("cluster_id") else opts["pki_dir"]
        directories += [os.path.join(pki, name) for name in STATE_DIRECTORIES]
    else:
        yield unknown("keys", f"are kept by {driver}; whether {user} may write them, the first enrolment shows")
    if settings is not None:
        directories += [settings.directory, os.path.join(settings.directory, "locks")]
    closed = [path for path in directories if not _is_writable(path)]
    for path in closed:
        yield wrong("keys", f"{user} cannot write to {path}", f"chown {user} {path}; is its file system mounted read-only?")
    if not closed:
        yield ok("keys", f"{user} can write to {', '.join(directories)}")


def _several_names(opts: dict[str, Any], settings: config.Config, store: Store) -> Iterator[Finding]:
    """
    A machine that got another id leaves its key behind under the old one. Which of them lives, nobody can tell here.
    """
    several: list[tuple[str, list[str]]] = []
    if _is_there(settings):
        with contextlib.suppress(Unavailable), store.read() as connection:
            if store.schema(connection) == SCHEMA:
                several = store.with_several_names(connection)
    keys = Keys(opts, settings.directory)
    for finger, names in several:
        states = [keys.state(name) for name in names]
        here = [name for name, state in zip(names, states) if state.key is not None and state.key.finger == finger]
        if len(here) > 1:
            yield unknown(
                "keys",
                f"the same one is accepted as {', '.join(here)}: a machine that got another id, or a copy of its disk",
                f"Remove {SPARE_NAME}.",
            )


def _is_writable(path: str) -> bool:
    """The directory itself, or, where it is not there yet, the one that it would be made in."""
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE)


# salt-api's known traps


def _salt_api(opts: dict[str, Any], settings: config.Config | None) -> Iterator[Finding]:
    cherrypy = opts.get("rest_cherrypy")
    if not isinstance(cherrypy, dict):
        yield ok("salt-api", "has no rest_cherrypy, and the enrolment service needs none")
        return
    if settings is not None and cherrypy.get("port", 8000) == settings.port:
        yield wrong(
            "salt-api", f"rest_cherrypy and {config.KEY} both have port {settings.port}", "Give one of them another port."
        )
    threads = cherrypy.get("thread_pool", 100)
    hooks = _hooks(opts.get("reactor"))
    if not hooks:
        yield ok("salt-api", "has rest_cherrypy, and no reactor waits for its hooks")
    elif threads == 1:
        yield ok("salt-api", "has thread_pool: 1, as its hooks need it")
    elif _salt_line() < 3007:
        yield ok(
            "salt-api", f"has a reactor for hooks; Salt {_salt_line()} takes them with any thread_pool, 3007 and 3008 do not"
        )
    else:
        yield wrong(
            "salt-api",
            f"has a reactor for hooks ({', '.join(hooks)}) and thread_pool {threads}: two hooks at once break its event socket",
            "Set rest_cherrypy: thread_pool: 1 and restart salt-api, or move to the enrolment service and take the reactor out.",
        )


def _hooks(reactor: Any) -> list[str]:
    found = []
    for entry in reactor if isinstance(reactor, list) else []:
        for tag in entry if isinstance(entry, dict) else []:
            if str(tag).startswith(HOOKS) or fnmatch.fnmatch(f"{HOOKS}/x", str(tag)):
                found.append(str(tag))
    return found


def _salt_line() -> int:
    return int(str(salt.version.__version__).split(".")[0])


def _files(opts: dict[str, Any], files: list[Source]) -> Iterator[Finding]:
    """Of some keys that are in two files Salt takes one file's value only: what the other one says is lost in silence."""
    for source in files:
        if source.keys is None:
            yield unknown("files", f"{source.path} cannot be read as YAML", "Salt's own log says why.")
    lost = False
    for key in SHARED_KEYS:
        having = [source for source in files if source.keys and key in source.keys]
        without = [source.path for source in having if source.keys and not _is_within(source.keys[key], opts.get(key))]
        if len(having) > 1 and without:
            lost = True
            says = (
                f"{key} is in {' and in '.join(source.path for source in having)}; of {' and '.join(without)} something is lost"
            )
            yield wrong("files", says, f"Put all of {key} into one of them, and restart salt-master and salt-api.")
    if not lost:
        yield ok("files", f"nothing is lost of {', '.join(SHARED_KEYS)}, in whichever of {len(files)} files they are")


def _is_within(part: Any, whole: Any) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and _is_within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return all(item in whole for item in part)
    return bool(part == whole)


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"
