#!/usr/bin/env -S python3 -B
"""Prints what the released program is made of, as a CycloneDX 1.6 bill of materials in JSON.

Usage: packaging/sbom.py

It has every crate that is linked into the program for one of the three architectures, with the checksum of Cargo.lock and
the licence that the crate declares, and which crate asks for which; and SQLite, whose C source one of them brings.
What only takes part in the build is left out, and so is the standard library, which is Debian's.
The same commit gives the same bytes: the serial number is made of Cargo.lock, the time is that of the commit.
"""
import json
import os
import pathlib
import re
import subprocess
import tomllib
import uuid
from datetime import datetime, timezone

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGETS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf")


def metadata():
    words = [os.environ.get("CARGO", "cargo"), "metadata", "--format-version", "1", "--locked"]
    for target in TARGETS:
        words += ["--filter-platform", target]
    return json.loads(subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)


def linked(found):
    """Whom each package that is linked into the program links, by id."""
    nodes = {node["id"]: node for node in found["resolve"]["nodes"]}
    is_macro = {package["id"]: any("proc-macro" in target["kind"] for target in package["targets"])
                for package in found["packages"]}
    graph, waiting = {}, [found["resolve"]["root"]]
    while waiting:
        one = waiting.pop()
        if one in graph:
            continue
        graph[one] = sorted(dep["pkg"] for dep in nodes[one]["deps"]
                            if any(kind["kind"] is None for kind in dep["dep_kinds"]) and not is_macro[dep["pkg"]])
        waiting += graph[one]
    return graph


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def licences(package):
    expression = (package["license"] or "").replace("/", " OR ")
    return {"licenses": [{"expression": expression}]} if expression else {}


def component(package, checksums):
    one = {"type": "library", "bom-ref": purl(package), "name": package["name"], "version": package["version"],
           "purl": purl(package), **licences(package)}
    if checksum := checksums.get((package["name"], package["version"])):
        one["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        one["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return one


def sqlite(packages):
    """The SQLite that libsqlite3-sys brings with it, and by whom."""
    carrier = next(package for package in packages if package["name"] == "libsqlite3-sys")
    header = pathlib.Path(carrier["manifest_path"]).parent / "sqlite3" / "sqlite3.h"
    version = re.search(r'^#define SQLITE_VERSION\s+"([0-9.]+)"', header.read_text(), re.M).group(1)
    ref = f"pkg:generic/sqlite@{version}"
    return purl(carrier), {"type": "library", "bom-ref": ref, "name": "sqlite", "version": version, "purl": ref,
                           "licenses": [{"license": {"id": "blessing"}}],
                           "externalReferences": [{"type": "website", "url": "https://sqlite.org/"}]}


def bill():
    found = metadata()
    lock = (ROOT / "Cargo.lock").read_text()
    checksums = {(one["name"], one["version"]): one.get("checksum") for one in tomllib.loads(lock)["package"]}
    graph = linked(found)
    packages = {package["id"]: package for package in found["packages"] if package["id"] in graph}
    root = packages.pop(found["resolve"]["root"])
    carrier, database = sqlite(packages.values())
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or subprocess.run(
        [ROOT / "packaging/epoch.sh"], stdout=subprocess.PIPE, check=True).stdout
    dependencies = {purl(packages.get(one, root)): [purl(packages[on]) for on in ons] for one, ons in graph.items()}
    dependencies[carrier].append(database["bom-ref"])
    dependencies[database["bom-ref"]] = []
    components = [component(package, checksums) for package in packages.values()] + [database]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, root['version'] + lock)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(int(epoch), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "application", "bom-ref": purl(root), "name": root["name"],
                          "version": root["version"], "purl": f"pkg:deb/fieldbridge@{root['version']}", **licences(root)},
        },
        "components": sorted(components, key=lambda one: one["bom-ref"]),
        "dependencies": [{"ref": ref, "dependsOn": sorted(on)} for ref, on in sorted(dependencies.items())],
    }


if __name__ == "__main__":
    print(json.dumps(bill(), indent=2))
