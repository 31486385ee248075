"""Completes the metadata of the distributions: links that work on the page of a package index.

The release workflow sets `SYNCD_REPOSITORY_URL` to the address of the repository. Links of the README then lead to the
files of the release, and the metadata names the pages of the project. Without it, links stay relative.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE_LINK = re.compile(r"\]\((?!https?://|#)([^)]+)\)")


class RepositoryLinks(MetadataHookInterface):
    """The hook that hatchling calls."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README as it is shown on a package index, and the addresses of the project."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["urls"] = {}
        if address := os.environ.get("SYNCD_REPOSITORY_URL"):
            files = f"{address}/blob/v{metadata['version']}"
            text = RELATIVE_LINK.sub(rf"]({files}/\1)", text)
            metadata["urls"] = {
                "Documentation": f"{files}/README.md",
                "Changelog": f"{files}/CHANGELOG.md",
                "Source": address,
                "Issues": f"{address}/issues",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
