"""Tests that start the ranks of a process grid: once for each grid, and many tests read what it computed."""
