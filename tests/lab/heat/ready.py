"""Succeeds if Heat lists the stacks of the project demo: API, engine, message queue and database all work then.

usage: ready.py KEYSTONE PASSWORD HEAT_API
"""

import sys

from keystoneauth1 import session
from keystoneauth1.identity import v3

keystone, password, api = sys.argv[1:]
auth = v3.Password(keystone + "/v3", username="demo", password=password, project_name="demo",
                   user_domain_id="default", project_domain_id="default")
demo = session.Session(auth=auth)
# One who asks before the engine listens gets no answer.
demo.get(f"{api}/v1/{demo.get_project_id()}/stacks", timeout=4)
