"""Tests of the way from block rows to the stored spectrum."""
