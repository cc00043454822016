"""Tests of the process grid."""
