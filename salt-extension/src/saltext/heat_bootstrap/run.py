"""
Puts the service together from the master's options, and runs it in a process of salt-api.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import threading
from typing import Any

from saltext.heat_bootstrap import config, server
from saltext.heat_bootstrap.announce import Announcer
from saltext.heat_bootstrap.keys import Keys, identity
from saltext.heat_bootstrap.publish import Publisher
from saltext.heat_bootstrap.service import Service
from saltext.heat_bootstrap.store import Store

log = logging.getLogger(__name__)

# After a mistake in the configuration: salt-api would start the process anew at once, again and again.
TRY_AGAIN = 30.0


def service(opts: dict[str, Any], settings: config.Config, store: Store) -> Service:
    """
    The service as the options want it.
    """
    keys, announcer, master = Keys(opts, settings.directory), Announcer(opts), identity(settings.directory)
    return Service(store, keys, Publisher(opts), master, settings.most_at_once, announce=announcer.say)


def forever(opts: dict[str, Any]) -> None:
    """
    Serves until SIGTERM or SIGINT.
    """
    asyncio.run(_forever(opts))


async def _forever(opts: dict[str, Any]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    while not stop.is_set():
        try:
            settings = config.read(opts)
            problems = config.unreadable(settings)
            if problems:
                raise config.Wrong(problems)
            store = Store(settings.database)
            try:
                await server.serve(settings, service(opts, settings, store), stop)
            finally:
                store.close()
        except config.Wrong as wrong:
            for problem in wrong.problems:
                log.error("heat_bootstrap: %s", problem)
        except ssl.SSLError as error:
            log.error("heat_bootstrap: %s.ssl_crt and ssl_key cannot be used: %s", config.KEY, error)
        except OSError as error:
            log.error("heat_bootstrap: cannot serve: %s", error)
        if not stop.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), TRY_AGAIN)


def leave() -> None:
    """
    Ends this process without waiting for threads that a master keeps waiting.
    """
    logging.shutdown()
    if threading.active_count() > 1:
        os._exit(0)
