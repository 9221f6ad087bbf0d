"""Check that every link within the built pages leads somewhere: to a file that is there, and to a place in it.

    python tools/check_links.py docs/_build     (exit 1 and a list if one is broken)

Links to elsewhere are not followed, so the check needs no network.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and the places in it that others may lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.places.add(value or "")
            elif name in ("href", "src"):
                self.links.add(value or "")
            elif name == "srcset":
                self.links |= {word for part in (value or "").split(",") for word in part.split()[:1]}


def broken(root: Path) -> list[str]:
    """Each link that leads nowhere, after its page."""
    root = root.resolve()
    pages = {path: Page(path) for path in sorted(root.rglob("*.html")) if path.parent != root / "_static"}
    if not pages:
        return [f"{root}: no pages"]
    found = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = unquote(parts.fragment)
            if not target.exists() or (place and target in pages and place not in pages[target].places):
                found.append(f"{path.relative_to(root)}: {link}")
    return found


def main() -> int:
    found = broken(Path(sys.argv[1]))
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
