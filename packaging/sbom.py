#!/usr/bin/env python3
"""
Prints the bill of materials of the program that ships: CycloneDX 1.5, JSON (https://cyclonedx.org/docs/1.5/json/).

What is linked is what `cargo tree` shows for the target: normal dependencies, without what only runs at compile time. Its
checksums are those of Cargo.lock. The same source gives the same bytes. There is one bill for all machines that the program
ships for: what is linked is the same, and what needs what for one of them stands there.

usage: sbom.py [TARGET...]     default: x86_64-unknown-linux-musl
env:   SOURCE_DATE_EPOCH    the time that it names, in seconds since 1970; none if absent
"""

import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import uuid

TOP = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = "heat-salt-bootstrap"


def tree(target):
    """Its lines as (depth, name, version, licence)."""
    command = ["cargo", "tree", "--locked", "--package", PROGRAM, "--target", target, "--edges", "normal,no-proc-macro"]
    command += ["--no-dedupe", "--prefix", "depth", "--format", "|{p}|{l}"]
    printed = subprocess.run(command, cwd=TOP, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in filter(None, printed.splitlines()):
        depth, package, licence = line.split("|")
        name, version = package.split()[:2]
        yield int(depth), name, version.removeprefix("v"), licence


def checksums():
    """Of Cargo.lock, by name and version."""
    entries = (TOP / "Cargo.lock").read_text(encoding="utf-8").split("[[package]]")[1:]
    found = {}
    for entry in entries:
        fields = dict(re.findall(r'^(name|version|checksum) = "([^"]*)"$', entry, re.MULTILINE))
        found[fields["name"], fields["version"]] = fields.get("checksum")
    return found


def component(name, version, licence, checksum):
    purl = f"pkg:cargo/{name}@{version}"
    entry = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if licence:
        # Crates of old write MIT/Apache-2.0, which is no SPDX expression.
        entry["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", licence)}]
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return entry


def main(*targets):
    sums, components, needs = checksums(), {}, {}
    for target in targets:
        above, linked = [], set()
        for depth, name, version, licence in tree(target):
            entry = component(name, version, licence, sums.get((name, version)))
            ref = entry["bom-ref"]
            components[ref] = entry
            linked.add(ref)
            needs.setdefault(ref, set())
            del above[depth:]
            if above:
                needs[above[-1]].add(ref)
            above.append(ref)
        # All of those before, and none besides.
        if linked != set(components):
            sys.exit(f"sbom.py: what is linked for {target} is not what is linked for {targets[0]}: they want a bill each")
    program = components.pop(next(ref for ref in components if ref.startswith(f"pkg:cargo/{PROGRAM}@")))
    program["type"] = "application"
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": program, "properties": [{"name": "cargo:target", "value": target} for target in targets]},
        "components": [components[ref] for ref in sorted(components)],
        "dependencies": [{"ref": ref, "dependsOn": sorted(needs[ref])} for ref in sorted(needs)],
    }
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch:
        when = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
        bom["metadata"]["timestamp"] = when.strftime("%Y-%m-%dT%H:%M:%SZ")
    # A name for this very content.
    bom["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bom, sort_keys=True)).urn
    print(json.dumps(bom, indent=2))


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["x86_64-unknown-linux-musl"]))
