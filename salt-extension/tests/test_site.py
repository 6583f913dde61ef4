"""
A site with a master of its own: nothing of what it has is changed by the drop-in that this project ships.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.loader

SHIPPED = Path(__file__).parents[2] / "cloud-init" / "salt-master" / "master.d" / "heat-salt-bootstrap.conf"

SITE = """
reactor:
  - 'salt/minion/*/start': [/srv/reactor/start.sls]
external_auth:
  pam:
    alice: ['@wheel', '@runner']
runner_dirs: [/srv/runners]
netapi_enable_clients: [local, runner, wheel]
rest_cherrypy:
  port: 8000
  thread_pool: 30
  ssl_crt: /etc/pki/tls/certs/site.crt
  ssl_key: /etc/pki/tls/private/site.key
"""


def effective(directory: Path) -> dict[str, Any]:
    """The master's whole configuration, without what differs from one reading to the next."""
    opts: dict[str, Any] = salt.config.master_config(str(directory / "master"))
    return {key: value for key, value in opts.items() if key not in ("__role", "startup_time", "grains")}


@pytest.fixture()
def site(tmp_path: Path) -> Path:
    """The configuration directory of such a site."""
    (tmp_path / "master.d").mkdir()
    (tmp_path / "master").write_text(f"root_dir: {tmp_path}\nuser: root\n")
    (tmp_path / "master.d" / "site.conf").write_text(SITE)
    return tmp_path


# Whichever is read last: before the site's own file, and after it.
@pytest.mark.parametrize("name", ["aa.conf", "zz.conf"])
def test_the_drop_in_adds_one_key(site: Path, name: str) -> None:
    before = effective(site)
    assert before["rest_cherrypy"]["thread_pool"] == 30
    assert "heat_bootstrap" not in before
    (site / "master.d" / name).write_text(SHIPPED.read_text())
    after = effective(site)
    added = after.pop("heat_bootstrap")
    assert set(added) >= {"ssl_crt", "ssl_key"}
    assert after == before


def test_the_extension_adds_modules_of_its_own_name(site: Path) -> None:
    (site / "master.d" / "zz.conf").write_text(SHIPPED.read_text())
    opts = salt.config.master_config(str(site / "master"))
    names = {name.split(".")[0] for name in salt.loader.runner(opts)}
    assert {"heat_bootstrap", "jobs", "manage"} <= names
    netapis = {name.split(".")[0] for name in salt.loader.netapi(opts)}
    assert {"heat_bootstrap", "rest_cherrypy"} <= netapis


def test_without_the_key_nothing_is_started(site: Path) -> None:
    opts = salt.config.master_config(str(site / "master"))
    assert not [name for name in salt.loader.netapi(opts) if name.startswith("heat_bootstrap.")]
