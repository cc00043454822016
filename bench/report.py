"""Write docs/performance.md and its charts: the prose of docs/performance.in.md, and the figures in bench/results.

``make bench-report``, or ``python bench/report.py``.
"""

from __future__ import annotations

import argparse

from lib.page import PAGE, committed_charts, committed_page


def main() -> None:
    """Write the charts and the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name, text in committed_charts().items():
        chart = PAGE.parent / name
        chart.parent.mkdir(exist_ok=True)
        if text is None:
            chart.unlink(missing_ok=True)
        else:
            chart.write_text(text, encoding="utf-8")
    PAGE.write_text(committed_page())


if __name__ == "__main__":
    main()
