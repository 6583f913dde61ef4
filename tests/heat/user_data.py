"""Prints the configuration and the handle that a user_data leaves on the VM, as JSON, read as cloud-init and the shell would.

usage: user_data.py FILE
"""

import email
import json
import sys

import yaml

def heredoc(text, name):
    return text.split("<<'" + name + "'\n", 1)[1].split("\n" + name + "\n", 1)[0]


text = open(sys.argv[1]).read()
if text.startswith("Content-Type: multipart"):
    parts = [part.get_payload(decode=True).decode() for part in email.message_from_string(text).walk() if not part.is_multipart()]
    text = next(part for part in parts if "END-OF-CONFIG" in part)
if text.startswith("#cloud-config"):
    files = {file["path"]: json.loads(file["content"]) for file in yaml.safe_load(text)["write_files"]}
    config, signal = files["/etc/heat-salt-bootstrap/config.json"], files["/etc/heat-salt-bootstrap/config.d/90-signal.json"]["signal"]
else:
    config, signal = (json.loads(heredoc(text, name)) for name in ("END-OF-CONFIG", "END-OF-SIGNAL"))
print(json.dumps([config, signal]))
