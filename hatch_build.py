"""Package metadata that is made when the package is built."""

from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Readme(MetadataHookInterface):
    """The README with addresses for its pictures, as a package index needs them.

    In the checkout they are paths, so that they are seen without the network.
    """

    def update(self, metadata: dict[str, Any]) -> None:
        """Put the README into the metadata."""
        pictures = metadata["urls"]["Repository"] + "/raw/main/docs/figures/"
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": text.replace("](docs/figures/", f"]({pictures}"),
        }
