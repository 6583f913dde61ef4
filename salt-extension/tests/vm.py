"""
A VM, as far as the service can tell.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import secrets
import ssl
import time
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

NO_TOKEN = "hsb2.0000000000000000.x"
# Making a key takes longer than everything else here.
KEYS: dict[int, rsa.RSAPrivateKey] = {}


def private_key(number: int = 0) -> rsa.RSAPrivateKey:
    """One of a few keys."""
    if number not in KEYS:
        KEYS[number] = rsa.generate_private_key(65537, 2048)
    return KEYS[number]


def public_pem(private: Any) -> str:
    """As a minion keeps it."""
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return str(private.public_key().public_bytes(*form).decode())


class Vm:
    """Makes claims; what they say can be changed in every part."""

    def __init__(self, minion: str = "web-1", token: str | None = None, key: int = 0, clock: Any = time.time) -> None:
        self.id = minion
        self.token = token
        self.private = private_key(key)
        self.bootstrap_id = "b-" + secrets.token_hex(4)
        self.clock = clock

    @property
    def token_key(self) -> bytes:
        return hashlib.sha256(".".join((self.token or NO_TOKEN).split(".")[:3]).encode()).digest()

    def document(self, verb: str, /, **changes: Any) -> dict[str, Any]:
        """What the claim says."""
        document: dict[str, Any] = {
            "verb": verb,
            "id": self.id,
            "key": public_pem(self.private),
            "bootstrap_id": self.bootstrap_id,
            "nonce": secrets.token_hex(16),
            "time": int(self.clock()),
        }
        if verb in ("enroll", "check"):
            document.update({"token": (self.token or NO_TOKEN).split(".")[1], "states": ["ok"]})
        if verb == "apply":
            document.update({"job": secrets.token_hex(16), "states": ["ok"], "pillar": {}, "again": False, "deadline": 600})
        if verb == "report":
            document.update(
                {
                    "verdict": "done",
                    "code": 0,
                    "reason": None,
                    "message": None,
                    "step": None,
                    "jid": None,
                    "seconds": 12.5,
                    "steps": [["enroll", 0.5]],
                    "failures": [],
                }
            )
        document.update(changes)
        return {key: value for key, value in document.items() if value is not ...}

    def sealed(self, document: dict[str, Any] | bytes, /, **changes: Any) -> bytes:
        """The request's body."""
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        signature = self.private.sign(content, padding.PKCS1v15(), hashes.SHA256())
        body = {
            "claim": base64.b64encode(content).decode(),
            "signature": base64.b64encode(signature).decode(),
            "proof": hmac.new(self.token_key, content, hashlib.sha256).hexdigest(),
        }
        body.update(changes)
        return json.dumps({key: value for key, value in body.items() if value is not ...}).encode()

    def claim(self, verb: str, /, **changes: Any) -> bytes:
        """A whole request."""
        return self.sealed(self.document(verb, **changes))

    def opened(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to an enrolment, if it is the service's own."""
        content = base64.b64decode(body["answer"])
        assert hmac.new(self.token_key, content, hashlib.sha256).hexdigest() == body["proof"]
        return dict(json.loads(content))


def post(port: int, verb: str, body: bytes, timeout: float = 60) -> tuple[int, dict[str, Any], Any]:
    """Over the wire."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=believing())
    try:
        connection.request("POST", f"/v1/{verb}", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read()), response.headers
    finally:
        connection.close()


def believing() -> ssl.SSLContext:
    """Takes every certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
