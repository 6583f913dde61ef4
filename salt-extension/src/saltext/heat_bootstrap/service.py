"""
Answers claims: what is decided, written down and done, in this order.

Nothing here knows HTTP's wire, so that tests can ask without it.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import Any, Callable, TypeVar

from sqlalchemy.engine import Connection

from saltext.heat_bootstrap import __version__, claims, decisions
from saltext.heat_bootstrap.claims import Claim
from saltext.heat_bootstrap.decisions import Grant, KeyState, Record
from saltext.heat_bootstrap.keys import Keys
from saltext.heat_bootstrap.publish import NotSent, Publisher, Unknown
from saltext.heat_bootstrap.refusals import Refused, Unavailable
from saltext.heat_bootstrap.store import MOST_NAMES, SPARE_NAME, Store
from saltext.heat_bootstrap.tokens import Token
from saltext.heat_bootstrap.waiting import Waiting

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# No bootstrap has so many jobs that none has reported.
MOST_JOBS_OF_ONE = 100
# A cause is logged once in so many seconds.
LOG_EVERY = 60.0


@dataclass(frozen=True)
class Answer:
    """
    Status, headers and body.
    """

    status: int
    body: dict[str, Any]
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Proved:
    """
    A claim that somebody wrote who has the token, or who names the enrolled key.
    """

    claim: Claim
    # The key of the token's proofs, for those that came with one
    token_key: bytes = b""


class Service:
    """
    ``door`` says who may come in, ``work`` does what they ask for; both may be called by many threads.
    """

    def __init__(
        self,
        store: Store,
        keys: Keys,
        publisher: Publisher,
        master: str,
        most_at_once: int,
        clock: Callable[[], float] = time.time,
        announce: Callable[[str, str], None] = lambda _act, _minion: None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._publisher = publisher
        self._master = master
        self._most_at_once = most_at_once
        self._clock = clock
        self._announce = announce
        self._waiting = Waiting()
        self._logged: dict[str, float] = {}
        self._lock = threading.Lock()

    def handle(self, method: str, path: str, body: bytes, peer: str = "") -> Answer:
        """Answers one request."""
        proved = self.door(method, path, body)
        return proved if isinstance(proved, Answer) else self.work(proved, peer)

    def door(self, method: str, path: str, body: bytes) -> Answer | Proved:
        """
        Finds out, cheaply, whether somebody asks who has a token or an enrolled key. Strangers come no further.
        """
        return self._answered("the door", lambda: self._door(method, path, body))

    def work(self, proved: Proved, peer: str = "") -> Answer:
        """
        Decides what is proved and does it. Refusals are written down as well.
        """
        claim = proved.claim
        doers = {
            "enroll": self._enroll,
            "check": self._check,
            "apply": self._apply,
            "report": self._report,
            "renew": self._renew,
            "deregister": self._deregister,
        }

        def worked() -> Answer:
            try:
                self._verify(claim)
                return doers[claim.verb](proved, peer)
            except Refused as refused:
                if refused.status < 500:
                    self._note_refusal(claim, refused, peer)
                raise

        return self._answered(claim.verb, worked)

    def status(self) -> Answer:
        """What anybody may know."""
        return self._ok({"service": "heat-salt-bootstrap", "protocol": 1, "version": __version__})

    def refuse(self, refused: Refused) -> Answer:
        """The answer that says so."""
        body = {"error": refused.word, "message": refused.message, "hint": refused.hint, "time": int(self._clock())}
        if refused.skew is not None:
            body["skew"] = refused.skew
        headers: tuple[tuple[str, str], ...] = ()
        if refused.status == 503:
            headers = (("Retry-After", str(refused.retry_after or self._come_back())),)
        return Answer(refused.status, body, headers)

    def busy(self, message: str) -> Refused:
        """For whom there is no place now; they come back spread out, and later where there are many."""
        return Refused("busy", message, "The agent comes back by itself.", retry_after=self._come_back())

    # The door

    def _door(self, method: str, path: str, body: bytes) -> Answer | Proved:
        verb = path[len("/v1/") :] if path.startswith("/v1/") else ""
        if verb != "status" and verb not in claims.VERBS:
            raise Refused("not-found", "There is nothing here.", "Is enroll.url the service's address, without a path?")
        if method != ("GET" if verb == "status" else "POST"):
            raise Refused("not-found", f"{verb} is not asked for with {method[:16]}.", status=405)
        if verb == "status":
            return self.status()
        claim = claims.read(verb, body)
        with self._store.read() as connection:
            if verb in claims.BY_TOKEN:
                token = self._store.token(connection, claim.token)
                if token is None:
                    raise Refused(
                        "token-unknown",
                        f"There is no token {claim.token}.",
                        "See heat-bootstrap token list; it may be another master's, or pruned.",
                    )
                if not claim.is_proved_by(token.key):
                    raise Refused("token-wrong", f"This is not the secret of token {claim.token}.", "Was it copied in full?")
                return Proved(claim, token.key)
            decisions.owner(claim, self._store.record(connection, claim.id))
            return Proved(claim)

    def _verify(self, claim: Claim) -> None:
        skew = claim.time - int(self._clock())
        if abs(skew) > claims.MOST_SKEW:
            ahead = "ahead" if skew > 0 else "behind"
            raise Refused(
                "clock-skew",
                f"The VM's clock is {abs(skew)} seconds {ahead}.",
                "Does the VM have NTP, and the master?",
                skew=skew,
            )
        claims.verify(claim)
        if not self._keys.valid(claim.id):
            raise Refused("malformed", "Salt takes no such id.")

    # What is asked for

    def _enroll(self, proved: Proved, peer: str) -> Answer:
        claim, now = proved.claim, self._clock()
        # A master without a key lets nobody in.
        master_public_key = self._keys.master_public_key()
        with self._keys.lock(claim.id):
            state = self._keys.state(claim.id)

            def decide(connection: Connection) -> tuple[Grant, list[str]]:
                before = self._store.record(connection, claim.id)
                placed = self._store.placed(connection, claim.id, self._master)
                grant = decisions.enrolment(self._token(connection, claim.token), claim, before, state, placed, now)
                remembered, other_names = self._store.is_remembered(connection, claim), []
                # What was granted may be carried out when it comes again; a further use it is not good for.
                if remembered and grant.counts:
                    raise _replayed()
                if not remembered:
                    self._store.remember(connection, claim, now)
                if grant.counts:
                    if not self._store.count_use(connection, claim.token, now):
                        # Somebody else took the last one since the token was looked at.
                        raise Refused("token-used-up", "The token is used up.", "Make another: heat-bootstrap token create.")
                    record = Record(claim.id, claim.key.finger, claim.token, int(now), removed=False)
                    self._store.put_record(connection, before, record)
                if grant.places:
                    other_names = self._other_names(connection, claim)
                    before_it = f"the accepted one, {state.key.shown}" if state.key else "another"
                    done = f"replaces {before_it}" if grant.status == "replaced" else "is accepted"
                    carried = "" if grant.counts else f"; granted before, carried out on {self._master}"
                    too = f"; it is also accepted as {', '.join(other_names)}" if other_names else ""
                    self._note(connection, claim, grant.status, f"key {claim.key.shown} {done}{carried}{too}", peer)
                elif placed != claim.key.finger:
                    self._store.put_placed(connection, claim.id, self._master, claim.key.finger)
                return grant, other_names

            grant, other_names = self._store.write(decide)
            # The use is counted and written down. Killed between here and the end, the key is placed when the claim comes again.
            if grant.places:
                self._keys.accept(claim.id, claim.key, replaces=grant.status == "replaced")
                self._store.write(lambda connection: self._store.put_placed(connection, claim.id, self._master, claim.key.finger))
                self._announce("accept", claim.id)
                if other_names:
                    log.warning(
                        "%s came in with the key that is accepted as %s, too: a machine that got another id, or a copy of its "
                        "disk. Remove %s",
                        claim.id,
                        ", ".join(other_names),
                        SPARE_NAME,
                    )
        answer = {
            "status": grant.status,
            "id": claim.id,
            "nonce": claim.nonce,
            "master_public_key": master_public_key,
            "time": int(now),
        }
        document = json.dumps(answer).encode()
        proof = claims.hmac_of(proved.token_key, document)
        return Answer(200, {"answer": base64.b64encode(document).decode(), "proof": proof})

    def _check(self, proved: Proved, _peer: str) -> Answer:
        claim, now = proved.claim, self._clock()
        state = self._keys.state(claim.id)
        with self._store.read() as connection:
            token = self._token(connection, claim.token)
            record, placed = self._store.record(connection, claim.id), self._store.placed(connection, claim.id, self._master)
            grant = decisions.enrolment(token, claim, record, state, placed, now)
        left = max(token.uses - token.used, 0)
        return self._ok({"status": "good", "would": grant.status, "uses_left": left, "expires": token.expires})

    def _apply(self, proved: Proved, peer: str) -> Answer:
        claim, now = proved.claim, self._clock()
        with self._keys.lock(claim.id):
            state = self._keys.state(claim.id)
            jid, publish, first = self._store.write(lambda connection: self._chosen(connection, claim, state, now, peer))
        # The jid is written down, and that it is published. Killed from here on, nobody publishes it but who is told to.
        if publish:
            try:
                self._publisher.publish(claim.id, claim.states, claim.pillar, claim.bootstrap_id, jid)
            except NotSent as error:
                self._store.write(lambda connection: self._not_sent(connection, claim, first, peer))
                raise Unavailable(f"job {jid} was not published: {error}") from error
            except Unknown as error:
                raise Unavailable(f"nobody knows whether job {jid} was published: {error}") from error
        return self._ok({"jid": jid, "published": publish})

    def _chosen(self, connection: Connection, claim: Claim, state: KeyState, now: float, peer: str) -> tuple[str, bool, bool]:
        """
        The job's jid, whether it is to be published, and whether that would be the first time.
        """
        record = decisions.owner(claim, self._store.record(connection, claim.id))
        decisions.application(self._store.token(connection, record.token), claim, record, state)
        job = self._store.job(connection, claim.id, claim.job)
        remembered = self._store.is_remembered(connection, claim)
        if job is None and remembered:
            raise _replayed()
        if job is not None and job["digest"] != claim.job_digest():
            raise Refused("malformed", "This job was asked for before, with other contents.", "Another job has another name.")
        # Whoever says the same thing twice is answered and moves nothing.
        if job is not None and (remembered or (job["published"] and not claim.again)):
            if not remembered:
                self._store.remember(connection, claim, now)
                self._store.goes_on(connection, claim, job, now)
            return str(job["jid"]), False, False
        first = job is None or not job["published"]
        if first:
            # Who is sent away, as most are in a herd, waits for nobody and has nothing taken back.
            self._has_a_place(connection, claim, now, noted=0)
        self._store.remember(connection, claim, now)
        if job is None:
            jid = self._publisher.new_jid()
            self._store.add_job(connection, claim, jid, now)
        else:
            jid = str(job["jid"])
            self._store.publish_again(connection, claim, bool(job["published"]), now)
        word = "published" if job is None else "again"
        self._note(connection, claim, word, f"job {jid} runs {','.join(claim.states)}", peer, record.token)
        # Last of all: everybody waits for whoever has the gate, and a database may take its time for each statement.
        if first and self._store.shuts_the_gate(connection):
            self._has_a_place(connection, claim, now, noted=1)
        return jid, True, first

    def _has_a_place(self, connection: Connection, claim: Claim, now: float, noted: int) -> None:
        """``noted`` says how many of its jobs are the one that is asked for."""
        others, own = self._store.under_way(connection, claim.id, now)
        if others >= self._most_at_once:
            raise self.busy(f"{others} bootstraps are under way, as many as may be.")
        if own - noted >= MOST_JOBS_OF_ONE:
            raise self.busy(f"{own - noted} jobs of {claim.id} are under way.")

    def _not_sent(self, connection: Connection, claim: Claim, first: bool, peer: str) -> None:
        if first:
            self._store.was_not_published(connection, claim)
        # So that the same document is worth something when it comes again.
        self._store.forget_nonce(connection, claim)
        self._note(connection, claim, "not-published", "the master did not take it", peer, granted=False)

    def _report(self, proved: Proved, _peer: str) -> Answer:
        claim, report, now = proved.claim, proved.claim.report, self._clock()
        if report is None:
            raise AssertionError("claims.read makes one")

        def note(connection: Connection) -> bool:
            decisions.owner(claim, self._store.record(connection, claim.id))
            if self._store.is_remembered(connection, claim):
                if self._store.report_digest(connection, claim) != report.digest():
                    raise _replayed()
                return False
            self._store.remember(connection, claim, now)
            self._store.put_report(connection, claim, report, now)
            return True

        if self._store.write(note):
            with self._lock:
                self._waiting.freed(time.monotonic())
        return self._ok({"status": "noted"})

    def _renew(self, proved: Proved, peer: str) -> Answer:
        claim, now = proved.claim, self._clock()
        with self._keys.lock(claim.id):
            state = self._keys.state(claim.id)

            def decide(connection: Connection) -> bool:
                record = decisions.owner(claim, self._store.record(connection, claim.id))
                placed = self._store.placed(connection, claim.id, self._master)
                places = decisions.renewal(self._store.token(connection, record.token), claim, record, state, placed)
                remembered = self._store.is_remembered(connection, claim)
                # One of before the machine left says nothing of now; one that was granted and not carried out is carried out.
                if remembered and record.removed:
                    raise _replayed()
                if not remembered:
                    self._store.remember(connection, claim, now)
                    self._store.put_lease(connection, claim.id, claim.key.finger, now)
                if record.removed:
                    self._store.put_record(connection, record, replace(record, removed=False))
                if not places and placed != claim.key.finger:
                    # An operator was faster. Where the key goes next, that is an operator's doing as well.
                    self._store.put_placed(connection, claim.id, self._master, claim.key.finger)
                if places:
                    self._note(connection, claim, "returned", f"key {claim.key.shown} is accepted again", peer, record.token)
                return places

            places = self._store.write(decide)
            if places:
                self._keys.accept(claim.id, claim.key, replaces=False)
                self._store.write(lambda connection: self._store.put_placed(connection, claim.id, self._master, claim.key.finger))
                self._announce("accept", claim.id)
        return self._ok({"status": "returned" if places else "renewed"})

    def _deregister(self, proved: Proved, peer: str) -> Answer:
        claim, now = proved.claim, self._clock()
        with self._keys.lock(claim.id):
            state = self._keys.state(claim.id)

            def decide(connection: Connection) -> bool:
                record = decisions.owner(claim, self._store.record(connection, claim.id))
                is_there = decisions.removal(self._store.token(connection, record.token), claim, record, state)
                remembered = self._store.is_remembered(connection, claim)
                # One that was granted and not carried out is carried out; one of before the last enrolment is not.
                if remembered and is_there and not record.removed:
                    raise _replayed()
                if not remembered:
                    self._store.remember(connection, claim, now)
                if is_there:
                    self._store.put_record(connection, record, replace(record, removed=True))
                    self._store.forget_placed(connection, claim.id, self._master)
                    self._store.end_jobs(connection, claim.id)
                    self._note(connection, claim, "removed", f"key {claim.key.shown} is removed", peer, record.token)
                return is_there

            is_there = self._store.write(decide)
            if is_there:
                self._keys.remove(claim.id)
                self._announce("delete", claim.id)
        return self._ok({"status": "removed" if is_there else "absent"})

    # What all of them need

    def _token(self, connection: Connection, name: str) -> Token:
        token = self._store.token(connection, name)
        if token is None:
            raise Refused("token-unknown", f"There is no token {name}.", "It was pruned just now.")
        return token

    def _other_names(self, connection: Connection, claim: Claim) -> list[str]:
        """Under which other ids this master has the key accepted; of many, some."""
        names = self._store.other_names(connection, claim.id, claim.key.finger, MOST_NAMES)
        return [name for name in names if self._keys.state(name).key == claim.key]

    def _note(
        self, connection: Connection, claim: Claim, word: str, why: str, peer: str, token: str | None = None, granted: bool = True
    ) -> None:
        self._store.note(
            connection,
            self._clock(),
            claim.verb,
            word,
            why,
            granted=granted,
            minion=claim.id,
            bootstrap_id=claim.bootstrap_id,
            token=token or claim.token or None,
            peer=peer,
        )

    def _note_refusal(self, claim: Claim, refused: Refused, peer: str) -> None:
        log.warning("%s of %s is refused: %s: %s", claim.verb, claim.id, refused.word, refused.message[:500])

        def note(connection: Connection) -> None:
            self._note(connection, claim, refused.word, refused.message, peer, granted=False)

        try:
            self._store.write(note)
        except Unavailable as error:
            self._log_seldom(f"a refusal is not in the audit: {error}")

    def _ok(self, body: dict[str, Any]) -> Answer:
        return Answer(200, {**body, "time": int(self._clock())})

    def _answered(self, what: str, work: Callable[[], Result]) -> Result | Answer:
        try:
            return work()
        except Refused as refused:
            return self.refuse(refused)
        except Unavailable as error:
            self._log_seldom(str(error))
        except Exception as error:  # a VM gets no traceback, whatever happens
            self._log_seldom(f"{what} failed: {error!r}", trace=True)
        return self.refuse(Refused("unavailable", "Database or master do not answer in time.", "The master's log says which."))

    def _log_seldom(self, message: str, trace: bool = False) -> None:
        # Numbers differ from one time to the next.
        kind = "".join(character for character in message[:200] if not character.isdigit())
        now = time.monotonic()
        with self._lock:
            if now - self._logged.get(kind, -LOG_EVERY) < LOG_EVERY:
                return
            if len(self._logged) > 100:
                self._logged.clear()
            self._logged[kind] = now
        log.error("heat_bootstrap: %s", message[:2000], exc_info=trace)

    def _come_back(self) -> int:
        """In how many seconds: the more wait, the later, and never all at once."""
        with self._lock:
            return self._waiting.comes_back(time.monotonic())


def _replayed() -> Refused:
    return Refused(
        "replayed",
        "This claim was answered before and would change something now.",
        "The agent makes a new one at its next start.",
    )
