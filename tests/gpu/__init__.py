"""The grids' tests on GPUs: the same suites, other ways to run them."""
