"""OS::Nova::Server and OS::Neutron::Port for a Heat without Nova and Neutron.

Both keep Heat's own property schema and validation of it, and the server Heat's own way of making user_data. What Nova would be
asked to boot is written below servers/ of the laboratory's directory instead; nothing is looked up by name.
"""

import json
import os
import types
import uuid

from heat.engine import resource
from heat.engine.resources.openstack.neutron import port
from heat.engine.resources.openstack.nova import server


class Server(server.Server):
    @classmethod
    def is_service_available(cls, context):
        return True, None

    def translation_rules(self, props):
        return []

    def validate(self):
        resource.Resource.validate(self)

    def client(self, name=None, version=None):
        if name is not None:
            return super().client(name, version)
        return types.SimpleNamespace(servers=types.SimpleNamespace(create=self._write_down))

    def _write_down(self, name, userdata, **request):
        directory = os.path.join(os.environ["HSB_HEAT_LAB"], "servers", name)
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, "user_data"), "wb") as file:
            file.write(userdata.encode() if isinstance(userdata, str) else userdata or b"")
        made = {"id": str(uuid.uuid4()), "name": name, "request": request}
        # It has its name when it is whole: whoever waits for it reads it at once.
        unnamed = os.path.join(directory, "server.json.new")
        with open(unnamed, "w") as file:
            json.dump(made, file, default=str)
        os.replace(unnamed, os.path.join(directory, "server.json"))
        return types.SimpleNamespace(id=made["id"])

    def check_create_complete(self, server_id):
        return True

    # Whether it is replaced has been decided by then, by Heat's own class; what Nova would do in place is left out.
    def handle_update(self, json_snippet, tmpl_diff, prop_diff):
        return []

    def check_update_complete(self, *args):
        return True

    def handle_delete(self):
        self._delete_user()

    def check_delete_complete(self, prg):
        return True

    def _resolve_attribute(self, name):
        return None


class Port(port.Port):
    @classmethod
    def is_service_available(cls, context):
        return True, None

    def translation_rules(self, props):
        return []

    def validate(self):
        resource.Resource.validate(self)

    def handle_create(self):
        self.resource_id_set(str(uuid.uuid4()))

    def check_create_complete(self, *args):
        return True

    def handle_delete(self):
        return None

    def check_delete_complete(self, *args):
        return True

    def _resolve_attribute(self, name):
        return {"fixed_ips": [{"ip_address": "192.0.2.10"}]}.get(name)


class Anything:
    """Whatever a parameter names is taken to exist."""

    def validate(self, value, context, template=None):
        return True


def resource_mapping():
    return {"OS::Nova::Server": Server, "OS::Neutron::Port": Port}


def constraint_mapping():
    return {name: Anything for name in ("glance.image", "nova.flavor", "nova.keypair", "nova.server", "neutron.network", "neutron.port")}
