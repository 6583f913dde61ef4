"""Makes, in a fresh Keystone, the accounts and the catalog that Heat wants; prints the id of the domain for its stacks' users.

usage: accounts.py KEYSTONE PASSWORD REGION HEAT_API HEAT_API_CFN
"""

import sys

from keystoneauth1 import session
from keystoneauth1.identity import v3

keystone, password, region, api, cfn = sys.argv[1:]
auth = v3.Password(keystone + "/v3", username="admin", password=password, project_name="admin",
                   user_domain_id="default", project_domain_id="default")
admin = session.Session(auth=auth)


def create(kind, **body):
    answer = admin.post(f"{keystone}/v3/{kind}s", json={kind: body})
    return answer.json()[kind]["id"]


roles = {role["name"]: role["id"] for role in admin.get(f"{keystone}/v3/roles").json()["roles"]}
for name in ("heat_stack_owner", "heat_stack_user"):
    roles[name] = create("role", name=name)


def grant(role, user, target):
    admin.put(f"{keystone}/v3/{target}/users/{user}/roles/{roles[role]}")


service = create("project", name="service", domain_id="default")
demo = create("project", name="demo", domain_id="default")
heat = create("user", name="heat", domain_id="default", password=password)
for role in ("admin", "service"):
    grant(role, heat, f"projects/{service}")
user = create("user", name="demo", domain_id="default", password=password)
for role in ("member", "heat_stack_owner"):
    grant(role, user, f"projects/{demo}")
domain = create("domain", name="heat")
grant("admin", create("user", name="heat_domain_admin", domain_id=domain, password=password), f"domains/{domain}")
for name, type, url in (("heat", "orchestration", api + "/v1/$(project_id)s"), ("heat-cfn", "cloudformation", cfn + "/v1")):
    offered = create("service", name=name, type=type)
    for interface in ("public", "internal", "admin"):
        create("endpoint", service_id=offered, interface=interface, region=region, region_id=region, url=url)
print(domain)
