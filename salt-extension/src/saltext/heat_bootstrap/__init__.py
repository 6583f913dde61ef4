"""
Lets VMs that boot with heat-salt-bootstrap join a Salt master, run their states and leave again.

What a VM may do is decided by the token that it brings; PROTOCOL.md says what the two say to each other.
"""

__version__ = "0.1.0"
