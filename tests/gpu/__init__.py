"""The grids' tests on GPUs: the same suites with other collectives."""
