"""Look over the built site: names, links inside it, and nothing from elsewhere.

Usage: python docs/check.py docs/_build/html
"""

import inspect
import sys
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jscan

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src"}


def public_names() -> Iterator[str]:
    """All names that a user may write: ``jscan.scan``, ``jscan.Updates.apply``, ..."""
    for name in jscan.__all__:
        value = getattr(jscan, name)
        yield f"jscan.{name}"
        if inspect.isclass(value) and value.__name__ == name:  # no second name
            own = [c for c in value.__mro__ if c.__module__.split(".")[0] == "jscan"]
            attributes = {a for c in own for a in vars(c) if not a.startswith("_")}
            yield from (f"jscan.{name}.{a}" for a in sorted(attributes))


def entries(inventory: Path) -> set[str]:
    """The names that the site has an entry for, from Sphinx's inventory."""
    _, body = inventory.read_bytes().split(b"zlib.\n", 1)
    lines = zlib.decompress(body).decode().splitlines()
    return {line.split(" ")[0] for line in lines if " py:" in line}


class Page(HTMLParser):
    """The anchors of a page, what it points to, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the tag says."""
        given = dict(attrs)
        self.anchors.update(filter(None, (given.get("id"), given.get("name"))))
        if tag == "a" and given.get("href"):
            self.targets.append(given["href"] or "")
        if given.get(LOADED.get(tag, "")) and given.get("rel") not in ("next", "prev"):
            self.loaded.append(given[LOADED[tag]] or "")


def faults(site: Path) -> Iterator[str]:
    """Everything that is wrong with the site."""
    missing = set(public_names()) - entries(site / "objects.inv")
    yield from (f"no entry for {name}" for name in sorted(missing))
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        where = path.relative_to(site.resolve())
        for target in page.targets + page.loaded:
            url = urlsplit(target)
            if url.scheme or url.netloc:
                if target in page.loaded and url.scheme != "data":
                    yield f"{where} loads {target}"
                continue
            file = (path.parent / unquote(url.path)).resolve() if url.path else path
            place = unquote(url.fragment)
            if not file.is_file():
                yield f"{where}: {target} leads nowhere"
            elif file in pages and place and place not in pages[file].anchors:
                yield f"{where}: {target} has no such place"


if __name__ == "__main__":
    found = list(faults(Path(sys.argv[1])))
    print("\n".join(found) or "The site: every name has an entry, every link a place")
    sys.exit(bool(found))
