"""Files with the shapes of real models and no weights: sparse, so that gigabytes cost no disk."""
