"""Tests on process grids: the ranks run once for each grid, and many tests read their results."""
