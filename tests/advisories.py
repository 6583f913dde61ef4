#!/usr/bin/env python3
"""
Prints what the RustSec advisory database says of the crates in our Cargo.lock files, as tests/deny.rs reads it: each crate, also those
of which nothing is said, and which versions are mended or were never affected.

The tests have no network, and what they go by has to stand in the tree. Run this again when a crate is added, and before each release:

    tests/advisories.py CLONE >tests/data/advisories.json

CLONE: a clone of https://github.com/rustsec/advisory-db, with a work tree or without.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

TOP = pathlib.Path(__file__).resolve().parent.parent
LOCKS = ["Cargo.lock", "fuzz/Cargo.lock"]


def crates():
    """Those that come from a registry: the others are ours."""
    packages = [package for lock in LOCKS for package in tomllib.loads((TOP / lock).read_text())["package"]]
    return sorted({package["name"] for package in packages if "source" in package})


def git(clone, *words):
    return subprocess.run(["git", "-C", clone, *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def advisory(text):
    """The front matter: a block of TOML at the head of a page."""
    found = re.match(r"```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    if not found:
        raise ValueError("no block of TOML at its head")
    read = tomllib.loads(found.group(1))
    versions = read["versions"]
    said = {key: read["advisory"][key] for key in ("id", "informational") if key in read["advisory"]}
    return said | {"patched": versions["patched"], "unaffected": versions.get("unaffected", [])}, "withdrawn" in read["advisory"]


def said_of(clone, name):
    said = []
    for path in git(clone, "ls-tree", "-r", "--name-only", "HEAD", f"crates/{name}/").splitlines():
        try:
            read, withdrawn = advisory(git(clone, "show", f"HEAD:{path}"))
        except (ValueError, KeyError) as error:
            sys.exit(f"advisories.py: {path} cannot be read: {error}")
        if not withdrawn:
            said.append(read)
    return said


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    clone = sys.argv[1]
    commit, date = git(clone, "log", "-1", "--format=%H %cs").split()
    names = crates()
    found = {name: said_of(clone, name) for name in names}
    print(json.dumps({"database": "rustsec/advisory-db", "commit": commit, "date": date, "crates": found}, indent=1))


main()
