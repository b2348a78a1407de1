"""generate: progress, output, and the diagnosis of a failed run."""
