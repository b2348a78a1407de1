"""The small model `shapes`: its world, its training and its export. Nothing here is imported by sdrun."""
