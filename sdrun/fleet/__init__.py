"""Clusters: nodes -> classes that share an image -> lock file -> manifests -> do the pins still fit?"""
