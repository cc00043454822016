"""Tests of the runner: its command line, its start under mpiexec, and what it reports."""
