"""Tests of the runner: its command line, its start under mpiexec, and its reports."""
