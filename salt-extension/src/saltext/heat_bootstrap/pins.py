"""
What a token pins: the public key of the service's certificate, or of a CA above it.
"""

from __future__ import annotations

import base64
import hashlib
import re

from cryptography import x509
from cryptography.hazmat.primitives import serialization

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def pin(kind: str, ssl_crt: str, ssl_chain: str | None) -> str:
    """
    ``s`` and the hash of the certificate's own key for ``key``, ``c`` and that of the chain's last CA for ``ca``.
    """
    sent = certificates(ssl_crt) + (certificates(ssl_chain) if ssl_chain else [])
    if kind == "key":
        return "s" + key_hash(sent[0])
    authorities = [certificate for certificate in sent[1:] if _is_ca(certificate)]
    if not authorities:
        raise ValueError(
            f"there is no CA among the certificates in {ssl_chain or ssl_crt}; the service has to send it: "
            "set heat_bootstrap.ssl_chain, or pin the key (--pin key)"
        )
    return "c" + key_hash(authorities[-1])


def certificates(path: str) -> list[x509.Certificate]:
    """
    Those in a file, in its order; there is at least one.
    """
    try:
        with open(path, "rb") as file:
            found = [x509.load_pem_x509_certificate(pem) for pem in _CERTIFICATE.findall(file.read())]
    except ValueError as error:
        raise ValueError(f"{path} has a certificate that cannot be read: {error}") from error
    if not found:
        raise ValueError(f"there is no certificate in {path}")
    return found


def key_hash(certificate: x509.Certificate) -> str:
    """
    What a token that pins this certificate's key has after its ``s``.
    """
    der = certificate.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, ValueError):
        return False
