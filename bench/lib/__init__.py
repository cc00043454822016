"""Modules that the programs of bench/ share; Python puts a program's folder first on its path."""
