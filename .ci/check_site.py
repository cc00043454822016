"""Checks a built site: ``check_site.py SITE``.

Every link and every picture resolves within the site, with its anchor; every picture has an alternative text; no page
loads a file from a network; a page has at most 1 MB.
"""

import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

MOST_BYTES = 1_000_000
ADDRESSES = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src", "video": "src"}
LOADED = ADDRESSES.keys() - {"a"}  # files that a browser loads with the page


class Page(HTMLParser):
    """The addresses and the anchors of a page, and its pictures without a text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.anchors: set[str] = set()
        self.silent: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the addresses of an element."""
        values = dict(attrs)
        self.anchors.update(value for name in ("id", "name") if (value := values.get(name)))
        if address := values.get(ADDRESSES.get(tag, "")):
            self.links.append((tag, address))
        if tag == "img" and not (values.get("alt") or "").strip():
            self.silent.append(values.get("src") or "")


def faults(site: Path) -> list[str]:
    """Return a line for each fault of the pages below `site`."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    found = [] if pages else [f"{site}: expected pages, found none"]
    by_page = defaultdict(list)
    for path, page in pages.items():
        lines = by_page[path.relative_to(site.resolve()).as_posix()]
        if (size := path.stat().st_size) > MOST_BYTES:
            lines.append(f"expected at most {MOST_BYTES} bytes, found {size}")
        lines += [f"a picture without an alternative text: {source}" for source in page.silent]
        for tag, address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if tag in LOADED and parts.scheme != "data":
                    lines.append(f"loads {address} from a network")
                continue
            # A server returns 404.html for any address, so its own addresses start at the root.
            start, place = (site, parts.path.lstrip("/")) if path.name == "404.html" else (path.parent, parts.path)
            target = (start / unquote(place)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                lines.append(f"{address} does not exist")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                lines.append(f"{address} has no such anchor")
    return found + [f"{name}: {line}" for name, lines in by_page.items() for line in dict.fromkeys(lines)]


def main(arguments: list[str]) -> int:
    """Print the faults, or the number of pages if there are no faults; return the exit status."""
    site = Path(arguments[0])
    lines = faults(site)
    print("\n".join(lines) or f"{site}: {len(list(site.rglob('*.html')))} pages, whose links and pictures resolve")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
