"""Modules that the programs of bench/ share; a program finds them since its own folder is first on its path."""
