"""
The master's keys, as Salt itself keeps them: files up to 3007, and behind Salt's own cache since 3008.

Every call looks at one id, however many there are.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import pwd
import secrets
import shutil
import tempfile
import threading
import time
from typing import Any, Iterator

import salt.cache
import salt.crypt
import salt.exceptions
import salt.utils.verify

from saltext.heat_bootstrap.claims import Key
from saltext.heat_bootstrap.decisions import KeyState
from saltext.heat_bootstrap.refusals import Refused, Unavailable

log = logging.getLogger(__name__)

# Between what was decided and what is placed, nobody else decides about the same id; ids share these locks.
STRIPES = 256
PATIENCE = 10.0
# The option with which Salt says that keys are in its cache
DRIVER = "keys.cache_driver"
# Salt's loader executes a module anew in place when another thread loads it, while the first may be using it.
_SALT = threading.Lock()


class Keys:
    """
    What the master has under an id, and how that is changed.
    """

    def __init__(self, opts: dict[str, Any], directory: str) -> None:
        self._opts = opts
        self._directory = directory
        self._caches: dict[str | None, Any] = {}

    @contextlib.contextmanager
    def lock(self, minion: str) -> Iterator[None]:
        """Nobody else on this master, in whatever thread or process, decides about this id meanwhile."""
        stripe = hashlib.sha256(minion.encode("utf-8", "replace")).digest()[0] % STRIPES
        try:
            os.makedirs(os.path.join(self._directory, "locks"), mode=0o700, exist_ok=True)
            handle = os.open(
                os.path.join(self._directory, "locks", f"{stripe:02x}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise Unavailable(f"a lock cannot be made: {error}") from error
        try:
            _locked(handle)
            yield
        finally:
            os.close(handle)

    def valid(self, minion: str) -> bool:
        """Would Salt take this id?"""
        return bool(salt.utils.verify.valid_id(self._opts, minion))

    def state(self, minion: str) -> KeyState:
        """What the master has under this id."""
        with _available("the key cannot be read"):
            if self._is_cached:
                with self._cache(DRIVER) as cache:
                    found = cache.fetch("keys", minion) or {}
                accepted, rejected = found.get("state") == "accepted", found.get("state") == "rejected"
                return KeyState(accepted, rejected, _read(found.get("pub")) if accepted else None)
            rejected = os.path.isfile(self._path("minions_rejected", minion))
            text = self._text("minions", minion)
            return KeyState(text is not None, rejected, _read(text))

    def accept(self, minion: str, key: Key, replaces: bool) -> None:
        """
        Makes this the accepted key; what waits or was denied under this id goes. On files the old key is replaced in one step.
        """
        with _available("the key cannot be placed"):
            if self._is_cached:
                with self._cache(DRIVER) as cache:
                    cache.store("keys", minion, {"state": "accepted", "pub": key.pem()})
                    # There may be none.
                    with contextlib.suppress(salt.exceptions.SaltException, OSError):
                        cache.flush("denied_keys", minion)
            else:
                self._place(self._path("minions", minion), key.pem())
                for state in ("minions_pre", "minions_denied"):
                    with contextlib.suppress(FileNotFoundError):
                        os.remove(self._path(state, minion))
            if replaces:
                self._clean_up(minion)

    def remove(self, minion: str) -> None:
        """As ``salt-key -d`` does, without looking at all other keys."""
        with _available("the key cannot be removed"):
            if self._is_cached:
                with self._cache(DRIVER) as cache:
                    cache.flush("keys", minion)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(self._path("minions", minion))
            self._clean_up(minion)

    def master_public_key(self) -> str:
        """The text that minions get from this master."""
        cluster = self._opts.get("cluster_id")
        directory, name = (self._opts["cluster_pki_dir"], "cluster.pub") if cluster else (self._opts["pki_dir"], "master.pub")
        with _available("the master's public key cannot be read"), open(os.path.join(directory, name), encoding="utf-8") as file:
            return file.read(64 * 1024)

    @property
    def _is_cached(self) -> bool:
        return DRIVER in self._opts

    def _clean_up(self, minion: str) -> None:
        """
        What Salt does after a key is gone: what the old machine said of itself is forgotten, and the key that protects what
        is published changes, so that the old machine understands no more of it.
        """
        if not self._opts.get("preserve_minion_cache", False):
            with contextlib.suppress(salt.exceptions.SaltException, OSError):
                if not self._is_cached:
                    shutil.rmtree(os.path.join(self._opts["cachedir"], "minions", minion), ignore_errors=True)
                with self._cache(None) as cache:
                    if self._is_cached:
                        cache.flush("grains", minion)
                        cache.flush("pillar", minion)
                    else:
                        cache.flush(f"minions/{minion}")
        if self._opts.get("rotate_aes_key", True):
            arguments = [self._opts["cachedir"], self._opts["user"]]
            # Salt changes the umask of the whole process meanwhile: of two threads at once one would leave it so.
            with _SALT:
                salt.crypt.dropfile(*([*arguments, self._opts["id"]] if self._is_cached else arguments))

    @contextlib.contextmanager
    def _cache(self, driver: str | None) -> Iterator[Any]:
        with _SALT:
            if driver not in self._caches:
                self._caches[driver] = (
                    salt.cache.factory(self._opts) if driver is None else salt.cache.Cache(self._opts, driver=self._opts[driver])
                )
            yield self._caches[driver]

    def _path(self, state: str, minion: str) -> str:
        return os.path.join(self._opts["pki_dir"], state, minion)

    def _text(self, state: str, minion: str) -> str | None:
        try:
            with open(self._path(state, minion), encoding="utf-8", errors="replace") as file:
                return file.read(64 * 1024)
        except FileNotFoundError:
            return None

    def _place(self, path: str, text: str) -> None:
        directory = os.path.dirname(path)
        os.makedirs(directory, exist_ok=True)
        # Salt passes over names with a dot before them when it lists keys.
        handle, new = tempfile.mkstemp(dir=directory, prefix=".hsb-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fchmod(handle, 0o644)
                # The master may run as another user than salt-api and has to be able to remove it.
                with contextlib.suppress(KeyError, PermissionError):
                    os.fchown(handle, pwd.getpwnam(self._opts["user"]).pw_uid, -1)
                os.fsync(handle)
            os.replace(new, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.remove(new)
            raise
        at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(at)
        finally:
            os.close(at)


def identity(directory: str) -> str:
    """
    Names this master's keys among those of several masters with one database. The master's own id would not do: it comes of
    the host name, and masters that were copied have the same.
    """
    path = os.path.join(directory, "identity")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    try:
        with open(path, encoding="ascii") as file:
            return file.read(64)
    except FileNotFoundError:
        new = f"{path}.{os.getpid()}"
        with open(new, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(16))
        # Whoever comes first names them.
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
        os.unlink(new)
        return identity(directory)


def _locked(handle: int) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise Unavailable("another claim about the same id takes too long") from error
        time.sleep(0.01)


def _read(text: str | None) -> Key | None:
    if text is None:
        return None
    try:
        return Key.read(text)
    except Refused:
        # Nobody's key: whoever comes is not the one who is accepted.
        return None


@contextlib.contextmanager
def _available(what: str) -> Iterator[None]:
    try:
        yield
    # Salt reads a key as text, and says no more than Python if it is none.
    except (OSError, UnicodeError, salt.exceptions.SaltException) as error:
        raise Unavailable(f"{what}: {error}") from error
