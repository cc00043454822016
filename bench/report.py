"""Write docs/performance.md: the prose of docs/performance.in.md with tables of the figures in bench/results.

``make bench-report``, or ``python bench/report.py``.
"""

from __future__ import annotations

import argparse

from lib.page import PAGE, committed_page


def main() -> None:
    """Write the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(committed_page())


if __name__ == "__main__":
    main()
