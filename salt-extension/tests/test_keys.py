"""
Keys are placed and removed as Salt itself would, one at a time.
"""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import threading
from typing import Any

import pytest
import salt.key

import vm
from conftest import World, pem
from saltext.heat_bootstrap import keys
from saltext.heat_bootstrap.claims import Key
from saltext.heat_bootstrap.refusals import Unavailable


def key_of(number: int = 0) -> Key:
    return Key.read(vm.public_pem(vm.private_key(number)))


def listed(world: World) -> dict[str, list[str]]:
    """As Salt sees them, without states that nobody has."""
    with salt.key.Key(world.opts) as key:
        return {state: names for state, names in key.list_keys().items() if names}


def test_as_salt_sees_them(world: World) -> None:
    world.keys.accept("web-1", key_of(), replaces=False)
    assert listed(world) == {"minions": ["web-1"]}
    with salt.key.Key(world.opts) as key:
        assert key.key_str("web-1")["minions"]["web-1"] == key_of().pem()
    state = world.keys.state("web-1")
    assert state.accepted and not state.rejected and state.key == key_of()
    with salt.key.Key(world.opts) as key:
        key.reject(match="web-1", include_accepted=True)
    assert world.keys.state("web-1").rejected
    with salt.key.Key(world.opts) as key:
        key.accept(match="web-1", include_rejected=True)
    assert world.keys.state("web-1").key == key_of()
    world.keys.accept("web-1", key_of(1), replaces=True)
    assert world.keys.state("web-1").key == key_of(1)
    world.keys.remove("web-1")
    assert listed(world) == {}
    assert not world.keys.state("web-1").accepted
    world.keys.remove("web-1")


def test_what_waits_goes(world: World) -> None:
    for state in ("minions_pre", "minions_denied"):
        (world.pki / state / "web-1").write_text(key_of(2).pem())
        (world.pki / state / "web-2").write_text(key_of(2).pem())
    world.keys.accept("web-1", key_of(), replaces=False)
    assert listed(world) == {"minions": ["web-1"], "minions_pre": ["web-2"], "minions_denied": ["web-2"]}


def test_nobody_lists_all_keys(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # Salt's loader looks for its modules once.
    world.keys.accept("web-0", key_of(), replaces=True)
    looked: list[str] = []
    for name in ("listdir", "scandir"):
        real = getattr(os, name)

        def note(path: Any = ".", real: Any = real) -> Any:
            looked.append(str(path))
            return real(path)

        monkeypatch.setattr(os, name, note)
    world.keys.state("web-1")
    world.keys.accept("web-1", key_of(), replaces=False)
    world.keys.accept("web-1", key_of(1), replaces=True)
    world.keys.remove("web-1")
    assert [path for path in looked if str(world.pki) in path] == []


def test_what_the_old_machine_said_is_forgotten(world: World) -> None:
    cache = world.root / "cache"
    if keys.DRIVER in world.opts:
        files = [cache / bank / "web-1.p" for bank in ("grains", "pillar")]
    else:
        files = [cache / "minions" / "web-1" / "data.p"]
    world.keys.accept("web-1", key_of(), replaces=False)
    for remove in (lambda: world.keys.accept("web-1", key_of(1), replaces=True), lambda: world.keys.remove("web-1")):
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"\x80")
        (cache / ".dfn").unlink(missing_ok=True)
        remove()
        assert not any(file.exists() for file in files)
        assert (cache / ".dfn").exists()


def test_a_key_that_nobody_can_read_is_nobodys(world: World) -> None:
    (world.pki / "minions" / "web-1").write_bytes(b"\xff\xfe nonsense")
    try:
        state = world.keys.state("web-1")
    except Unavailable:
        # 3008 reads it as text before anybody can look.
        return
    assert state.accepted and state.key is None


def test_locks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "PATIENCE", 0.05)
    with world.keys.lock("web-1"):
        with pytest.raises(Unavailable), world.keys.lock("web-1"):
            pass
        with pytest.raises(Unavailable), keys.Keys(world.opts, str(world.file.parent)).lock("web-1"):
            pass
    with world.keys.lock("web-1"):
        pass


def test_many_threads(world: World) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                world.keys.accept(f"web-{number}", key_of(number % 4), replaces=True)
                assert world.keys.state(f"web-{number}").key == key_of(number % 4)
                world.keys.remove(f"web-{number}")
        except BaseException as error:
            failed.append(error)

    fresh = keys.Keys(world.opts, str(world.file.parent))
    world.keys = fresh
    for number in range(4):
        vm.private_key(number)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert listed(world) == {}


def test_the_masters_own_key(world: World, tmp_path: pathlib.Path) -> None:
    assert world.keys.master_public_key() == "the master's key"
    (world.pki / "master.pub").unlink()
    who = world.vm()
    assert world.word("enroll", who.claim("enroll")) == "503 unavailable"
    assert world.used(who) == 0 and world.accepted() is None
    assert pem(who).startswith("-----BEGIN PUBLIC KEY-----")


def test_the_umask_stays_as_it_is(world: World) -> None:
    """Salt changes it for a moment; the locks that are made afterwards would be read-only for whoever is not root."""
    before = os.umask(0o022)
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: world.keys.remove(f"web-{number}"), range(400)))
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
