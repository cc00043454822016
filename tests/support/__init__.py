"""The tests' support: references, files, the harness that starts ranks, what they compute, suites over the results."""
