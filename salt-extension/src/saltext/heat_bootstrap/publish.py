"""
Has the master publish a job.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import logging
import os
import threading
from typing import Any, Sequence

import salt.client
import salt.exceptions
import salt.utils.jid

log = logging.getLogger(__name__)

# Longer than a master that is merely busy takes, and shorter than an agent waits for an answer.
MOST_SECONDS = 20.0
# As many as wait for it in server.py: none of those waits for another.
THREADS = 8


class NotSent(Exception):
    """
    It is known that no minion was sent anything.
    """


class Unknown(Exception):
    """
    The master did not say in time whether it has published the job; it may do so any moment.
    """


class Publisher:
    """
    A few threads with a client of Salt each: those break when two threads use one at once.
    """

    def __init__(self, opts: dict[str, Any], threads: int = THREADS, most_seconds: float = MOST_SECONDS) -> None:
        # Salt's client sends a request anew that was not answered in time, up to three times. A slow master has all of them
        # in its queue, and would publish the job as often.
        self._opts = {**opts, "request_channel_tries": 1}
        self._most_seconds = most_seconds
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, "hsb-publish")
        self._local = threading.local()
        self._making = threading.Lock()

    def new_jid(self) -> str:
        """A jid as Salt makes them, which the master has not given to another job yet."""
        moment = datetime.datetime.now(datetime.timezone.utc)
        while True:
            jid = f"{moment:%Y%m%d%H%M%S%f}"
            if not os.path.isdir(self._jid_dir(jid)):
                return jid
            moment += datetime.timedelta(microseconds=1)

    def publish(self, minion: str, states: Sequence[str], pillar: dict[str, Any] | None, bootstrap_id: str, jid: str) -> None:
        """
        Runs states on one minion as the job ``jid``.
        """
        waiting = self._pool.submit(self._publish, minion, states, pillar, bootstrap_id, jid)
        try:
            waiting.result(self._most_seconds)
        except concurrent.futures.TimeoutError as error:
            if waiting.cancel():
                raise NotSent("all threads that publish wait for the master") from error
            raise Unknown("the master does not answer") from error

    def close(self) -> None:
        """Starts nothing more."""
        self._pool.shutdown(wait=False)

    def _publish(self, minion: str, states: Sequence[str], pillar: dict[str, Any] | None, bootstrap_id: str, jid: str) -> None:
        if self._opts.get("ipc_mode", "") != "tcp" and not os.path.exists(
            os.path.join(self._opts["sock_dir"], "publish_pull.ipc")
        ):
            raise NotSent("the master does not run")
        kwarg: dict[str, Any] = {"queue": True, "bootstrap_id": bootstrap_id}
        if pillar:
            kwarg["pillar"] = pillar
        try:
            published = self._client().run_job(
                [minion],
                "state.sls",
                arg=[",".join(states)],
                tgt_type="list",
                timeout=max(1, int(self._most_seconds) - 5),
                jid=jid,
                kwarg=kwarg,
                metadata={"bootstrap_id": bootstrap_id},
                listen=False,
            )
        except (salt.exceptions.AuthenticationError, salt.exceptions.AuthorizationError) as error:
            self._drop_client()
            raise NotSent(f"the master does not let salt-api publish: {error}") from error
        except BaseException as error:
            self._drop_client()
            raise Unknown(f"the master cannot be asked: {error}") from error
        if not published:
            raise NotSent(f"the master does not know {minion} yet")

    def _client(self) -> Any:
        client = getattr(self._local, "client", None)
        if client is None:
            # Its loaders are made from options that all share.
            with self._making:
                client = self._local.client = salt.client.get_local_client(mopts=self._opts)
        return client

    def _drop_client(self) -> None:
        client, self._local.client = getattr(self._local, "client", None), None
        if client is not None:
            try:
                client.destroy()
            except Exception as error:  # what is broken may also break while it is put away
                log.debug("a client of Salt could not be put away: %s", error)

    def _jid_dir(self, jid: str) -> str:
        return str(salt.utils.jid.jid_dir(jid, os.path.join(self._opts["cachedir"], "jobs"), self._opts["hash_type"]))
