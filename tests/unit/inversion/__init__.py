"""Tests of priors, noise and inversions."""
