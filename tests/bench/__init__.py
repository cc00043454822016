"""Tests of the benchmarks and of the page that they fill."""
