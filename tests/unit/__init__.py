"""Tests of the library, in folders like the library's."""
