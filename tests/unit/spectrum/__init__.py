"""Tests of the set-up, from block rows to the stored spectrum."""
