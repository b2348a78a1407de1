"""Models: what a name or a path means in files."""
