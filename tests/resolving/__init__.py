"""Builders, strategies and a second reading of the rules, for the tests of resolving."""
