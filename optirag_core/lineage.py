"""Manifests of a workspace: which artifact a digest means, and new digests down to the last child.

An erasure or a migration gives an artifact other files under its version, and with them another digest. Its manifest
lists the digests that it had, and whoever was made from it is rewritten to name the new one.
"""

import re
from collections.abc import Mapping
from typing import Any

from optirag_core.manifest import MANIFEST, digest_of, manifest_text, parse_manifest, seal
from optirag_core.storage.base import Storage

REPLACES = "replaces"
"""Key of a manifest: the digests that this artifact had before, oldest first."""
HELD_ERASED = "held_erased_user"
"""Key of a manifest: true where the artifact, or one that it was made from, held a user who has been erased."""

_PATH = re.compile(rf"([^./][^/]*/[^./][^/]*)/{re.escape(MANIFEST)}")

Manifest = Mapping[str, Any]


def manifests(storage: Storage) -> dict[str, Manifest]:
    """`<kind>/<version>` -> manifest of every artifact and committed run.

    Raises:
        ArtifactCorrupt, ArtifactMismatch: one is damaged, or of another schema.
    """
    return {
        match[1]: parse_manifest(storage.read(path) or b"", f"{storage.uri}/{path}")
        for path in storage.list("")
        if (match := _PATH.fullmatch(path))
    }


def meant_by(found: Mapping[str, Manifest], kind: str, digest: str | None) -> str | None:
    """The folder of the artifact that has this digest or had it; None where it is gone."""
    return next((folder for folder, each in found.items() if each["kind"] == kind and digest in _digests(each)), None)


def changed(
    manifest: Manifest, *, files: Mapping[str, Any] | None = None, parents: Mapping[str, str] | None = None,
    held_erased: bool = False,
) -> Manifest:  # fmt: skip
    """The manifest with other files or parents: version, config and figures stay, the digest is another one.

    Returns:
        `manifest` itself where they are the same.
    """
    identity = {
        "kind": manifest["kind"], "files": dict(files or manifest["files"]), "config": manifest["config"],
        "parents": dict(parents or manifest["parents"]),
    }  # fmt: skip
    digest = digest_of(identity)
    if digest == manifest["digest"]:
        return manifest
    marks = {REPLACES: _digests(manifest)} | ({HELD_ERASED: True} if held_erased else {})
    return seal({**manifest, **identity, "digest": digest, **marks})


def relink(storage: Storage) -> None:
    """Rewrite manifests until each parent is named by the digest that it has now; one atomic write each."""
    while True:
        found = manifests(storage)
        now = {old: each for each in found.values() for old in each.get(REPLACES, ())}
        outdated = {folder: each for folder, each in found.items() if now.keys() & set(each["parents"].values())}
        if not outdated:
            return
        for folder, each in outdated.items():
            new = {kind: now[digest] for kind, digest in each["parents"].items() if digest in now}
            parents = {**each["parents"], **{kind: parent["digest"] for kind, parent in new.items()}}
            held_erased = any(parent.get(HELD_ERASED) for parent in new.values())
            left = changed(each, parents=parents, held_erased=held_erased)
            storage.write(f"{folder}/{MANIFEST}", manifest_text(left).encode())


def _digests(manifest: Manifest) -> list[str]:
    """The ones that it had, oldest first, then the one that it has."""
    return [*manifest.get(REPLACES, ()), manifest["digest"]]
