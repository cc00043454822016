"""Tests of faults: interrupts, damaged files, errors on one rank."""
