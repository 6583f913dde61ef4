"""
Says on the master's event bus which keys came and went, as ``salt-key`` does: reactors may wait for that.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from typing import Any

import salt.utils.event

log = logging.getLogger(__name__)

# Of a master that does not take them; what is more is not said.
MOST_WAITING = 1000


class Announcer:
    """
    One thread with one connection to the bus, so that no claim waits for it.
    """

    def __init__(self, opts: dict[str, Any]) -> None:
        self._opts = opts
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "hsb-announce")
        self._room = threading.Semaphore(MOST_WAITING)
        self._event: Any = None

    def say(self, act: str, minion: str) -> None:
        """``accept`` or ``delete``; at once, whatever becomes of it."""
        if self._room.acquire(blocking=False):
            self._pool.submit(self._say, act, minion)

    def close(self, wait: bool = False) -> None:
        """Starts nothing more; what is under way may be waited for. The connection ends after that."""
        self._pool.submit(self._hang_up)
        self._pool.shutdown(wait=wait)

    def _say(self, act: str, minion: str) -> None:
        try:
            if self._event is None:
                self._event = salt.utils.event.get_master_event(self._opts, self._opts["sock_dir"], listen=False)
            self._event.fire_event({"result": True, "act": act, "id": minion}, "salt/key")
        except Exception as error:  # nobody has to hear it
            log.debug("no event says that the key of %s: %s: %s", minion, act, error)
            self._hang_up()
        finally:
            self._room.release()

    def _hang_up(self) -> None:
        event, self._event = self._event, None
        if event is not None:
            try:
                event.destroy()
            except Exception as error:  # what is broken may also break while it is put away
                log.debug("the connection to the event bus could not be put away: %s", error)
