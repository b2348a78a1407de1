"""Pure values and rules: compute capabilities, archs, drivers, host facts, indexes, resolving. No I/O."""
