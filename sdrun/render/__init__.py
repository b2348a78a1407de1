"""Catalogue + templates -> text."""
