#!/usr/bin/env python3
"""
Prints the bill of materials of the program that ships: CycloneDX 1.5, JSON (https://cyclonedx.org/docs/1.5/json/).

What is linked is what `cargo tree` shows for the target: normal dependencies, without what only runs at compile time. Its
checksums are those of Cargo.lock. The same source gives the same bytes. There is one bill for all machines that the program
ships for: what is linked is the same, and what needs what for one of them stands there. What cargo does not know of is named too: Rust's
standard library, musl libc, and the C in ring.

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


def rust():
    """Its version, and where it keeps the libraries of targets."""
    asked = {"version": ["--version", "--verbose"], "sysroot": ["--print", "sysroot"]}
    said = {what: subprocess.run(["rustc", *words], check=True, stdout=subprocess.PIPE, text=True).stdout for what, words in asked.items()}
    return re.search("^release: (.*)$", said["version"], re.MULTILINE).group(1), pathlib.Path(said["sysroot"].strip(), "lib/rustlib")


def musl(targets, libraries):
    """Its version, as the archives that are linked say it; none if they are not here."""
    found = set()
    for target in targets:
        machine = target.split("-")[0]
        places = [libraries / target / "lib/self-contained/libc.a", pathlib.Path(f"/usr/lib/{machine}-linux-musl/libc.a")]
        for place in filter(pathlib.Path.exists, places):
            # The member that holds it, from its header (https://man7.org/linux/man-pages/man5/ar.5.html) to the next one's.
            member = re.search(rb"version\.l?o/[0-9 ]{30,50}`\n(.*?)`\n", place.read_bytes(), re.DOTALL)
            # The compiler's own stands behind its name and a blank.
            found.update(re.findall(rb"(?<![ .0-9])(\d+\.\d+\.\d+)\0", member.group(1)) if member else [])
            break
    if len(found) > 1:
        sys.exit(f"sbom.py: not the same musl for all of {targets}: {found}")
    if not found:
        print("sbom.py: no musl for these targets is here: the bill does not say which one is linked", file=sys.stderr)
    return found.pop().decode() if found else None


def unknown_to_cargo(targets, ring):
    """Components, and which other one needs each."""
    version, libraries = rust()
    std = {
        "type": "library",
        "bom-ref": "rust-std",
        "name": "rust-std",
        "version": version,
        "description": "Rust's standard library, with the crates that belong to it",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
        "purl": f"pkg:github/rust-lang/rust@{version}",
    }
    libc = {
        "type": "library",
        "bom-ref": "musl",
        "name": "musl",
        "description": "The C library",
        "licenses": [{"expression": "MIT AND BSD-2-Clause"}],
        "purl": "pkg:generic/musl",
    }
    number = musl(targets, libraries)
    if number:
        libc |= {"version": number, "purl": f"pkg:generic/musl@{number}"}
    # It has no version but the one of the crate that brings it.
    c = {
        "type": "library",
        "bom-ref": "ring-c",
        "name": "ring-c",
        "version": ring["version"],
        "description": "The C and assembler in ring, which come from BoringSSL",
        "licenses": ring["licenses"],
        "purl": f"{ring['purl']}#crypto",
    }
    return [(std, None), (libc, "rust-std"), (c, ring["bom-ref"])]


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
    ring = next(entry for entry in components.values() if entry["name"] == "ring")
    for entry, needed_by in unknown_to_cargo(targets, ring):
        components[entry["bom-ref"]] = entry
        needs[entry["bom-ref"]] = set()
        needs[needed_by or program["bom-ref"]].add(entry["bom-ref"])
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
