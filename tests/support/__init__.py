"""The tests' support: references, files, the harness that starts ranks, their tasks, and suites over the results."""
