"""Writes what the binary is made of, as CycloneDX 1.6: `cargo metadata` says which crates and why, `Cargo.lock` their checksums.

Called by `make sbom`. The same source gives the same bytes: no time, no random number.
"""

import json
import pathlib
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-musl"


def metadata():
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def checksums():
    """(name, version) → SHA-256 of the crate as it was published."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(crate["name"], crate["version"]): crate["checksum"] for crate in lock["package"] if "checksum" in crate}


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def shipped(nodes, root):
    """The ids of what is in the binary or makes it, and for each what it needs: not what only tests need."""
    needed, waiting = {}, [root]
    while waiting:
        package = waiting.pop()
        if package in needed:
            continue
        needs = [it["pkg"] for it in nodes[package]["deps"] if any(kind["kind"] != "dev" for kind in it["dep_kinds"])]
        needed[package] = needs
        waiting += needs
    return needed


def component(package, checksum):
    it = {
        "type": "library" if checksum else "application",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package["license"]:
        # Older crates write a slash where SPDX has OR.
        it["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if checksum:
        it["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        it["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return it


def bom():
    data, known = metadata(), checksums()
    packages = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    root = data["resolve"]["root"]
    needed = shipped(nodes, root)

    def described(package_id):
        package = packages[package_id]
        return component(package, known.get((package["name"], package["version"])))

    order = sorted(needed, key=lambda package_id: reference(packages[package_id]))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": described(root)},
        "components": [described(package_id) for package_id in order if package_id != root],
        "dependencies": [
            {
                "ref": reference(packages[package_id]),
                "dependsOn": sorted({reference(packages[need]) for need in needed[package_id]}),
            }
            for package_id in order
        ],
    }


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    written = bom()
    target.write_text(json.dumps(written, indent=1) + "\n")
    print(f"{target}: {len(written['components'])} crates")
