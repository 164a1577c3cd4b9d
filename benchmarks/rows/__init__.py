"""Families of benchmark rows. A module here defines `rows(quick)`, which yields `Row`s; nothing else registers it."""
