"""
Row by row what PROTOCOL.md says of answers, refusals and of asking twice.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

import vm
from conftest import NotSent, Unknown, World, pem
from saltext.heat_bootstrap import claims
from saltext.heat_bootstrap.waiting import Waiting


def reject(world: World, who: vm.Vm) -> None:
    (world.pki / "minions_rejected" / who.id).write_text(pem(who))


def accept(world: World, who: vm.Vm) -> None:
    (world.pki / "minions" / who.id).write_text(pem(who))


def delete(world: World, minion: str = "web-1") -> None:
    (world.pki / "minions" / minion).unlink()


def enrolled(world: World, **changes: Any) -> vm.Vm:
    who = world.vm(**changes)
    assert world.enroll(who) == "accepted"
    return who


def revoke(world: World, who: vm.Vm) -> None:
    name = str(who.token).split(".")[1]
    assert world.store.write(lambda connection: world.store.revoke(connection, name))


# enroll and check


def test_accepted(world: World) -> None:
    who = world.vm()
    (world.pki / "minions_pre" / "web-1").write_text(pem(world.vm(key=1)))
    (world.pki / "minions_denied" / "web-1").write_text(pem(world.vm(key=1)))
    checked = world.ask("check", who.claim("check")).body
    assert checked == {
        "status": "good",
        "would": "accepted",
        "uses_left": 1,
        "expires": int(world.clock()) + 3600,
        "time": int(world.clock()),
    }
    assert world.accepted() is None and world.audit() == [] and world.used(who) == 0
    body = who.claim("enroll")
    answer = world.ask("enroll", body)
    opened = who.opened(answer.body)
    document = json.loads(__import__("base64").b64decode(json.loads(body)["claim"]))
    assert opened == {
        "status": "accepted",
        "id": "web-1",
        "nonce": document["nonce"],
        "master_public_key": "the master's key",
        "time": int(world.clock()),
    }
    assert world.accepted() == pem(who)
    assert not (world.pki / "minions_pre" / "web-1").exists()
    assert not (world.pki / "minions_denied" / "web-1").exists()
    assert (world.pki / "minions" / "web-1").stat().st_mode & 0o137 == 0 or world.opts.get("keys.cache_driver") is None
    [line] = world.audit()
    assert (line["verb"], line["granted"], line["id"], line["peer"]) == ("enroll", True, "web-1", "192.0.2.7")
    assert who.token is not None and line["token"] == who.token.split(".")[1]


def test_unknown_and_wrong(world: World) -> None:
    who = vm.Vm("web-1", "hsb2." + "0" * 16 + "." + "x" * 43)
    assert world.enroll(who) == "401 token-unknown"
    real = world.vm()
    assert real.token is not None
    guess = vm.Vm("web-1", real.token[:-1] + ("A" if real.token[-1] != "A" else "B"), clock=world.clock)
    for verb in ("enroll", "check"):
        assert world.word(verb, guess.claim(verb)) == "401 token-wrong"
    assert world.audit() == [] and world.accepted() is None


def test_expired_used_up_revoked(world: World) -> None:
    expired = world.vm("web-1", expires=int(world.clock()) - 1)
    assert world.enroll(expired) == "403 token-expired"
    assert world.word("check", expired.claim("check")) == "403 token-expired"
    used = world.vm("web-2", uses=2)
    assert world.enroll(used) == "accepted"
    assert world.enroll(world.vm("web-3", used.token)) == "accepted"
    assert world.enroll(world.vm("web-4", used.token)) == "403 token-used-up"
    assert world.used(used) == 2
    revoked = world.vm("web-5", revoked=True)
    assert world.enroll(revoked) == "403 token-revoked"
    assert world.words() == ["token-expired", "token-expired", "accepted", "accepted", "token-used-up", "token-revoked"]
    assert world.accepted("web-4") is None and world.accepted("web-5") is None


def test_states_that_will_be_asked_for(world: World) -> None:
    who = world.vm()
    assert world.enroll(who, states=["ok", "other"]) == "403 state-not-allowed"
    assert world.word("check", who.claim("check", states=["other"])) == "403 state-not-allowed"
    assert world.enroll(who, states=["ok", "more"]) == "accepted"
    assert world.enroll(world.vm("web-2"), states=[]) == "accepted"


@pytest.mark.parametrize("skew, fine", [(-301, False), (-300, True), (-299, True), (299, True), (300, True), (301, False)])
def test_clocks(world: World, skew: int, fine: bool) -> None:
    who = world.vm()
    answer = world.ask("enroll", who.claim("enroll", time=int(world.clock()) + skew))
    assert answer.status == (200 if fine else 403)
    if not fine:
        assert (answer.body["error"], answer.body["skew"], answer.body["time"]) == ("clock-skew", skew, int(world.clock()))


@pytest.mark.parametrize("seconds", [3600, -3600, 10 * 365 * 86400, -10 * 365 * 86400])
def test_the_masters_clock_is_off(world: World, seconds: int) -> None:
    """A VM is told of the clocks, which it waits for, and not that its token has expired, for which it would give up."""
    newcomer, known = world.vm("web-1"), world.vm("web-2", key=1)
    assert world.enroll(known) == "accepted"
    good = world.clock.now
    for who in (newcomer, known):
        who.clock = lambda: good
    world.clock.now += seconds
    for verb in ("enroll", "check"):
        assert world.word(verb, newcomer.claim(verb)) == "403 clock-skew"
    for verb in ("apply", "report", "renew"):
        answer = world.ask(verb, known.claim(verb))
        assert (answer.status, answer.body["error"], answer.body["skew"]) == (403, "clock-skew", -seconds)
    assert world.used(newcomer) == 0 and world.accepted("web-1") is None and world.publisher.published == []
    # Somebody has set it.
    world.clock.now = good
    assert world.enroll(newcomer) == "accepted"
    assert world.word("apply", known.claim("apply")) == "200"


def test_already(world: World) -> None:
    who = enrolled(world)
    assert world.enroll(who) == "already"
    assert world.ask("check", who.claim("check")).body["would"] == "already"
    world.clock.now += 7200
    assert world.enroll(who) == "already"
    assert world.used(who) == 1
    revoke(world, who)
    assert world.enroll(who) == "403 token-revoked"
    assert world.words() == ["accepted", "token-revoked"]


def test_a_machine_that_got_another_id(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Its key stays accepted under the old one, and an operator is told: the service cannot know that nobody lives there."""
    text = world.token(uses=9)
    before, after = world.vm("web-1", text), world.vm("web-2", text)

    def warned() -> list[str]:
        return [line.getMessage() for line in caplog.records if line.levelname == "WARNING"]

    assert world.enroll(before) == "accepted"
    assert warned() == []
    assert world.enroll(after) == "accepted"
    assert world.accepted("web-1") == world.accepted("web-2") == pem(before)
    [line] = warned()
    assert "web-2 came in with the key that is accepted as web-1, too" in line
    assert world.audit()[-1]["why"].endswith(" is accepted; it is also accepted as web-1")
    # Asked again, nothing new is said; and of a name that an operator has removed nothing at all.
    assert world.enroll(after) == "already"
    delete(world, "web-1")
    delete(world, "web-2")
    assert world.enroll(world.vm("web-3", text)) == "accepted"
    assert len(warned()) == 1 and world.audit()[-1]["why"].endswith(" is accepted")


def test_the_same_key_under_another_token_costs_a_use_of_that(world: World) -> None:
    first = enrolled(world)
    second = world.vm()
    assert world.enroll(second) == "accepted"
    assert (world.used(first), world.used(second)) == (1, 1)
    assert world.enroll(first) == "403 token-used-up"


def test_key_conflict_and_rebuild(world: World) -> None:
    first = enrolled(world)
    other = world.vm(key=1)
    assert world.enroll(other) == "409 key-conflict"
    assert world.word("check", other.claim("check")) == "409 key-conflict"
    assert (world.accepted(), world.used(other)) == (pem(first), 0)
    again = world.vm(key=1, rebuild=True)
    assert world.ask("check", again.claim("check")).body["would"] == "replaced"
    assert world.enroll(again) == "replaced"
    assert world.accepted() == pem(again)
    assert world.enroll(again) == "already"
    # The key that protects what is published changes.
    assert (world.root / "cache" / ".dfn").exists()
    for verb in ("apply", "report", "deregister"):
        assert world.word(verb, first.claim(verb)) == "403 not-enrolled"
    assert world.enroll(first) == "403 token-used-up"


def test_a_key_that_an_operator_accepted(world: World) -> None:
    operators, who = world.vm(key=1), world.vm()
    accept(world, operators)
    assert world.enroll(who) == "409 key-conflict"
    assert world.word("apply", operators.claim("apply")) == "403 not-enrolled"
    (world.pki / "minions" / "web-1").write_text("nobody can read this")
    assert world.enroll(who) == "409 key-conflict"
    accept(world, who)
    assert world.enroll(who) == "accepted"
    assert world.used(who) == 1


def test_rejected(world: World) -> None:
    who = world.vm(rebuild=True)
    reject(world, who)
    assert world.enroll(who) == "409 key-rejected"
    assert world.word("check", who.claim("check")) == "409 key-rejected"
    assert world.accepted() is None and world.used(who) == 0
    later = enrolled(world, minion="web-2")
    reject(world, later)
    for verb in ("enroll", "apply"):
        assert world.word(verb, later.claim(verb)) == "409 key-rejected"


def test_an_operator_removed_the_key(world: World) -> None:
    who = enrolled(world, uses=2)
    delete(world)
    assert world.word("apply", who.claim("apply")) == "403 not-enrolled"
    assert world.word("deregister", who.claim("deregister")) == "403 deregister-not-allowed"
    # Another key may come in now, and the same one needs another use.
    other = world.vm(key=1)
    assert world.enroll(other) == "accepted"
    delete(world)
    assert world.enroll(who) == "accepted"
    assert world.used(who) == 2
    delete(world)
    assert world.enroll(who) == "403 token-used-up"


# apply


def test_apply(world: World) -> None:
    who = enrolled(world)
    document = who.document("apply", states=["ok", "more"], pillar={"a": 1})
    answer = world.ask("apply", who.sealed(document))
    assert answer.status == 200 and answer.body["published"] is True
    jid = answer.body["jid"]
    assert len(jid) == 20 and jid.isdigit()
    assert world.publisher.published == [("web-1", "ok,more", jid, {"a": 1})]
    # The same document, the same job in a new one, and the same job with another deadline
    for changes in ({}, {"nonce": "1" * 32}, {"nonce": "2" * 32, "deadline": 5}):
        answer = world.ask("apply", who.sealed({**document, **changes}))
        assert (answer.status, answer.body["jid"], answer.body["published"]) == (200, jid, False)
    assert len(world.publisher.published) == 1
    again = who.sealed({**document, "nonce": "3" * 32, "again": True})
    assert world.ask("apply", again).body["published"] is True
    assert world.ask("apply", again).body == {"jid": jid, "published": False, "time": int(world.clock())}
    assert [entry[2] for entry in world.publisher.published] == [jid, jid]
    other = world.ask("apply", who.claim("apply")).body["jid"]
    assert other != jid
    for changes in ({"states": ["ok"]}, {"pillar": {"a": 2}}, {"bootstrap_id": "other"}):
        body = who.sealed({**document, "nonce": who.document("apply")["nonce"], **changes})
        assert world.word("apply", body) == "400 malformed"
    assert world.words() == ["accepted", "published", "again", "published", "malformed", "malformed", "malformed"]


def test_apply_refused(world: World) -> None:
    assert world.word("apply", world.vm().claim("apply")) == "403 not-enrolled"
    who = enrolled(world)
    assert world.word("apply", world.vm(key=1).claim("apply")) == "403 not-enrolled"
    assert world.word("apply", who.claim("apply", states=["ok", "other"])) == "403 state-not-allowed"
    assert world.word("apply", who.claim("apply", time=int(world.clock()) - 400)) == "403 clock-skew"
    assert world.word("apply", who.sealed(who.document("apply"), signature="AAAA")) == "401 signature-wrong"
    accept(world, world.vm(key=1))
    assert world.word("apply", who.claim("apply")) == "409 key-conflict"
    accept(world, who)
    revoke(world, who)
    assert world.word("apply", who.claim("apply")) == "403 token-revoked"
    assert world.publisher.published == []
    # Who is no stranger leaves a line; the others do not.
    assert world.words() == ["accepted", "state-not-allowed", "clock-skew", "signature-wrong", "key-conflict", "token-revoked"]


def test_apply_after_the_token_is_used_up_and_expired(world: World) -> None:
    who = enrolled(world)
    world.clock.now += 10000
    assert world.word("apply", who.claim("apply")) == "200"


def three_at_work(world: World, count: int) -> tuple[list[vm.Vm], list[dict[str, Any]]]:
    """So many that were let in, and the jobs of each; the first three, as many as may be, are under way."""
    text = world.token(uses=10)
    herd = [world.vm(f"web-{number}", text) for number in range(count)]
    for who in herd:
        assert world.enroll(who) == "accepted"
    jobs = [who.document("apply", deadline=100) for who in herd]
    for who, job in zip(herd[:3], jobs):
        assert world.word("apply", who.sealed(job)) == "200"
    return herd, jobs


def test_busy(world: World) -> None:
    herd, jobs = three_at_work(world, 6)
    refused = who_is_busy = herd[3].sealed(jobs[3])
    assert world.word("apply", refused) == "503 busy"
    # Who is under way already may go on, and the same job is answered.
    assert world.word("apply", herd[0].claim("apply")) == "200"
    assert world.word("apply", herd[0].sealed(jobs[0])) == "200"
    assert world.word("report", herd[1].claim("report")) == "noted"
    # The very same document is good after it was told to come back.
    assert world.word("apply", who_is_busy) == "200"
    assert world.word("apply", herd[4].sealed(jobs[4])) == "503 busy"
    world.clock.now += 101
    later = herd[4].claim("apply")
    assert world.word("apply", later) == "200"
    waits = [int(dict(world.service.refuse(world.service.busy("x")).headers)["Retry-After"]) for _ in range(60)]
    assert len(set(waits)) > 5


def test_a_clock_that_was_years_ahead_keeps_no_places(world: World) -> None:
    """The whole cloud's clock was, and killed bootstraps of then hold nothing once it was set."""
    text = world.token(uses=10, expires=2**40)
    herd = [world.vm(f"web-{number}", text) for number in range(7)]
    good = world.clock.now
    world.clock.now += 10 * 365 * 86400
    for who in herd:
        assert world.enroll(who) == "accepted"
    assert [world.word("apply", who.claim("apply")) for who in herd[:4]] == ["200"] * 3 + ["503 busy"]
    world.clock.now = good
    # As many as ever, also where the master that counts is a little behind the one that has let them in.
    assert world.word("apply", herd[3].claim("apply")) == "200"
    world.clock.now -= claims.MOST_SKEW
    assert [world.word("apply", who.claim("apply")) for who in herd[4:]] == ["200"] * 2 + ["503 busy"]


def test_who_goes_on_keeps_the_place(world: World) -> None:
    """After a reboot the agent asks for the job that it has, with a deadline of its own."""
    herd, jobs = three_at_work(world, 5)

    def asks_again(number: int, **changes: Any) -> None:
        again = herd[number].document("apply", job=jobs[number]["job"], **changes)
        assert world.ask("apply", herd[number].sealed(again)).body["published"] is False

    world.clock.now += 60
    asks_again(0, deadline=100)
    # A shorter one takes nothing away.
    asks_again(0, deadline=5)
    # What was reported is over.
    assert world.word("report", herd[1].claim("report")) == "noted"
    asks_again(1, deadline=1000)
    world.clock.now += 60
    # 0 has its place; 1 and 2 have none any more.
    assert [world.word("apply", who.claim("apply")) for who in herd[3:]] == ["200"] * 2
    newcomer = world.vm("web-9")
    assert world.enroll(newcomer) == "accepted"
    assert world.word("apply", newcomer.claim("apply")) == "503 busy"


def test_nobody_goes_on_for_longer_than_one_bootstrap_may(world: World) -> None:
    who = enrolled(world, expires=2**40)
    document = who.document("apply", deadline=claims.MOST_DEADLINE)
    chosen = int(world.clock())
    for _ in range(9):
        again = {**document, "nonce": who.document("apply")["nonce"], "time": int(world.clock())}
        assert world.word("apply", who.sealed(again)) == "200"
        world.clock.now += 86400
    with world.store.read() as connection:
        job = world.store.job(connection, who.id, document["job"])
    assert job is not None and job["until"] == chosen + claims.MOST_DEADLINE


def places(waiting: Waiting, now: float, count: int) -> list[int]:
    return [waiting.comes_back(now) for _ in range(count)]


def test_who_waits_comes_back_at_the_pace_of_places() -> None:
    few = places(Waiting(), 0, 20)
    assert min(few) >= 5 and max(few) <= 15 and len(set(few)) > 5
    # As many as may ask: 900 within 45 s, and the last of very many within five minutes.
    waiting = Waiting()
    many = places(waiting, 0, 900)
    assert max(many[:200]) <= 15 and 35 < max(many[-100:]) <= 45
    # Who is back is not counted.
    assert max(places(waiting, 100, 20)) <= 15
    assert 250 < max(places(Waiting(), 0, 20000)) <= 300
    # Where a hundred a second become free, 6,000 that wait are back within a minute.
    waiting = Waiting()
    for hundredth in range(3000):
        waiting.freed(hundredth / 100)
    assert 45 < max(places(waiting, 30, 6000)) <= 61


def test_places_that_reports_free_are_counted(world: World) -> None:
    who = enrolled(world)
    body = who.claim("report")
    assert [world.word("report", body) for _ in range(3)] == ["noted"] * 3
    assert len(world.service._waiting._freed) == 1


def test_not_sent_is_sent_later(world: World) -> None:
    who = enrolled(world)
    body = who.claim("apply")
    world.publisher.trouble = NotSent("no master")
    assert world.word("apply", body) == "503 unavailable"
    world.publisher.trouble = None
    answer = world.ask("apply", body)
    assert (answer.status, answer.body["published"]) == (200, True)
    assert len(world.publisher.published) == 1


def test_nobody_knows_whether_it_was_sent(world: World) -> None:
    who = enrolled(world)
    document = who.document("apply")
    world.publisher.trouble = Unknown("slow master")
    assert world.word("apply", who.sealed(document)) == "503 unavailable"
    world.publisher.trouble = None
    answer = world.ask("apply", who.sealed(document))
    assert (answer.status, answer.body["published"]) == (200, False)
    again = world.ask("apply", who.sealed({**document, "nonce": "1" * 32, "again": True}))
    assert (again.body["jid"], again.body["published"]) == (answer.body["jid"], True)
    assert len(world.publisher.published) == 1


def test_again_that_was_not_sent_stays_published(world: World) -> None:
    who = enrolled(world)
    document = who.document("apply")
    assert world.word("apply", who.sealed(document)) == "200"
    world.publisher.trouble = NotSent("no master")
    again = who.sealed({**document, "nonce": "1" * 32, "again": True})
    assert world.word("apply", again) == "503 unavailable"
    world.publisher.trouble = None
    assert world.ask("apply", who.sealed({**document, "nonce": "2" * 32})).body["published"] is False
    assert world.ask("apply", again).body["published"] is True


# report


def test_report(world: World) -> None:
    assert world.word("report", world.vm().claim("report")) == "403 not-enrolled"
    who = enrolled(world)
    failed = who.claim(
        "report", verdict="failed", code=20, reason="state-failed", failures=[{"id": "x", "sls": "ok", "comment": "no"}]
    )
    assert world.word("report", failed) == "noted"
    assert world.word("report", failed) == "noted"
    done = who.claim("report")
    assert world.word("report", done) == "noted"
    # An older one, played back, does not hide the newer.
    assert world.word("report", failed) == "409 replayed"
    with world.store.read() as connection:
        [entry] = world.store.fleet(connection, 0, world.clock())
    assert (entry["verdict"], entry["steps"]) == ("done", [["enroll", 0.5]])
    revoke(world, who)
    assert world.word("report", who.claim("report")) == "noted"


def test_reports_of_one_minion_are_bounded(world: World) -> None:
    who = enrolled(world)
    for number in range(25):
        assert world.word("report", who.claim("report", bootstrap_id=f"b-{number}")) == "noted"
    with world.store.read() as connection:
        count = connection.exec_driver_sql("SELECT COUNT(*) FROM hsb_reports").scalar()
    assert count == 20


# deregister


def test_deregister(world: World) -> None:
    assert world.word("deregister", world.vm().claim("deregister")) == "403 not-enrolled"
    kept = enrolled(world)
    assert world.word("deregister", kept.claim("deregister")) == "403 deregister-not-allowed"
    assert world.accepted() == pem(kept)
    who = enrolled(world, minion="web-2", deregister=True)
    assert world.word("deregister", world.vm("web-2", key=1).claim("deregister")) == "403 not-enrolled"
    body = who.claim("deregister")
    assert world.word("deregister", body) == "removed"
    assert world.accepted("web-2") is None
    assert world.word("deregister", body) == "absent"
    assert world.word("deregister", who.claim("deregister")) == "absent"
    assert world.word("apply", who.claim("apply")) == "403 not-enrolled"
    assert world.enroll(who) == "403 token-used-up"
    revoke(world, who)
    assert world.words() == ["accepted", "deregister-not-allowed", "accepted", "removed", "not-enrolled", "token-used-up"]


def test_deregister_of_another_key_that_is_accepted(world: World) -> None:
    who = enrolled(world, deregister=True)
    operators = world.vm(key=1)
    accept(world, operators)
    assert world.word("deregister", who.claim("deregister")) == "absent"
    assert world.accepted() == pem(operators)


def test_deregister_after_revoke(world: World) -> None:
    who = enrolled(world, deregister=True)
    revoke(world, who)
    assert world.word("deregister", who.claim("deregister")) == "403 token-revoked"
    assert world.accepted() == pem(who)


# Replays


def test_replays_of_enrolments(world: World) -> None:
    who = world.vm(uses=5, rebuild=True)
    body = who.claim("enroll")
    assert world.ask("enroll", body).status == 200
    assert who.opened(world.ask("enroll", body).body)["status"] == "already"
    second = world.vm("web-1", who.token, key=1)
    assert world.enroll(second) == "replaced"
    # The old VM's claim, while the token has uses left
    assert world.word("enroll", body) == "409 replayed"
    assert world.accepted() == pem(second)
    delete(world)
    assert world.word("enroll", body) == "409 replayed"
    world.restart()
    assert world.word("enroll", body) == "409 replayed"
    world.store.write(lambda connection: world.store.prune(connection, 0, world.clock()))
    assert world.word("enroll", body) == "409 replayed"
    world.clock.now += 301
    assert world.word("enroll", body) == "403 clock-skew"
    assert world.used(who) == 2
    name = str(who.token).split(".")[1]
    world.store.write(lambda connection: world.store.revoke(connection, name))
    world.clock.now -= 301
    assert world.word("enroll", body) == "403 token-revoked"
    assert world.accepted() is None


def test_an_already_is_remembered_too(world: World) -> None:
    who = enrolled(world, uses=5)
    body = who.claim("enroll")
    assert who.opened(world.ask("enroll", body).body)["status"] == "already"
    delete(world)
    assert world.word("enroll", body) == "409 replayed"
    assert world.accepted() is None


def test_a_nonce_of_another_claim(world: World) -> None:
    who = enrolled(world, uses=5, deregister=True)
    nonce = "c" * 32
    assert world.word("apply", who.claim("apply", nonce=nonce)) == "200"
    assert world.word("apply", who.claim("apply", nonce=nonce)) == "409 replayed"
    assert world.word("deregister", who.claim("deregister", nonce=nonce)) == "409 replayed"
    assert world.word("report", who.claim("report", nonce=nonce)) == "409 replayed"
    assert world.accepted() == pem(who)


def test_replay_of_deregister_after_coming_back(world: World) -> None:
    who = enrolled(world, uses=5, deregister=True)
    body = who.claim("deregister")
    assert world.word("deregister", body) == "removed"
    assert world.enroll(who) == "accepted"
    assert world.word("deregister", body) == "409 replayed"
    assert world.accepted() == pem(who)


def test_nonces_are_forgotten_when_their_time_is_past(world: World) -> None:
    who = enrolled(world)
    for _ in range(20):
        world.enroll(who, time=int(world.clock()) + 300)

    def count() -> Any:
        with world.store.read() as connection:
            return connection.exec_driver_sql("SELECT COUNT(*) FROM hsb_nonces").scalar()

    assert count() == 21
    world.clock.now += 600
    world.enroll(who)
    assert count() >= 21
    world.clock.now += 301
    world.enroll(who)
    assert count() <= 3


# Several masters


def test_two_masters_with_one_database(world: World, tmp_path: Any) -> None:
    who = world.vm()
    assert world.enroll(who) == "accepted"
    first = world.service
    opts = {**world.opts, "pki_dir": str(tmp_path / "pki2")}
    for name in ("minions", "minions_pre", "minions_rejected", "minions_denied"):
        (tmp_path / "pki2" / name).mkdir(parents=True)
    (tmp_path / "pki2" / "master.pub").write_text("the master's key")
    world.service = world.another("second_master", opts)
    # Somebody else under the same id is refused there, too, although that master has no key.
    assert world.enroll(world.vm(key=1)) == "409 key-conflict"
    assert world.ask("check", who.claim("check")).body["would"] == "accepted"
    assert world.enroll(who) == "accepted"
    assert world.enroll(who) == "already"
    assert (tmp_path / "pki2" / "minions" / "web-1").read_text() == pem(who)
    assert world.used(who) == 1
    (tmp_path / "pki2" / "minions" / "web-1").unlink()
    assert world.enroll(who) == "403 token-used-up"
    job = who.document("apply")
    (tmp_path / "pki2" / "minions" / "web-1").write_text(pem(who))
    answer = world.ask("apply", who.sealed(job))
    world.service = first
    assert world.ask("apply", who.sealed(job)).body["jid"] == answer.body["jid"]
    assert len(world.publisher.published) == 1


# Audit


def test_refusals_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from saltext.heat_bootstrap import store

    monkeypatch.setattr(store, "MOST_REFUSALS", 100)
    granted = enrolled(world)
    flood = world.vm("web-2", expires=0)

    def refusals(connection: Any) -> None:
        for _ in range(1000):
            world.store.note(connection, 0, "enroll", "token-expired", "x" * 10000, granted=False, minion="web-2")

    world.store.write(refusals)
    assert world.enroll(flood) == "403 token-expired"
    lines = world.audit()
    assert lines[0]["word"] == "accepted" and granted.id == lines[0]["id"]
    assert len(lines) < 1 + 100 + 257
    assert max(len(line["why"]) for line in lines) == 500


def test_nothing_secret_is_kept_or_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    import logging

    caplog.set_level(logging.DEBUG)
    who = enrolled(world)
    world.ask("apply", who.claim("apply", pillar={"password": "hush-hush"}))
    world.enroll(world.vm("db-1", who.token))
    world.store.close()
    secret = str(who.token).split(".")[2]
    for path in world.file.parent.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()
            assert b"hush-hush" not in path.read_bytes()
    assert secret not in caplog.text and "hush-hush" not in caplog.text
    assert world.file.stat().st_mode & 0o777 == 0o600
    assert world.file.parent.stat().st_mode & 0o777 == 0o700


def test_nothing_is_written_or_logged_for_strangers(world: World, caplog: pytest.LogCaptureFixture) -> None:
    who = enrolled(world)
    world.store.close()
    caplog.clear()
    before = {path: path.read_bytes() for path in world.file.parent.iterdir() if path.is_file()}
    guess = vm.Vm("web-1", str(who.token)[:-4] + "AAAA", clock=world.clock)
    for verb in ("enroll", "check"):
        world.ask(verb, guess.claim(verb))
    for verb in ("apply", "report", "deregister"):
        world.ask(verb, vm.Vm("web-1", key=1, clock=world.clock).claim(verb))
        world.ask(verb, vm.Vm("web-9", clock=world.clock).claim(verb))
    world.ask("enroll", b"{}")
    world.store.close()
    after = {path: path.read_bytes() for path in world.file.parent.iterdir() if path.is_file()}
    assert after.keys() == before.keys()
    assert caplog.records == []
