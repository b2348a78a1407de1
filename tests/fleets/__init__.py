"""Clusters for tests: node documents as the API server prints them, and the scheduler's rules written a second time."""
