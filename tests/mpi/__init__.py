"""Tests that run on process grids: each grid is spawned once under mpiexec, and many tests read what it computed."""
