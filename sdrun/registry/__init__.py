"""Registries of images: reading by digest, publishing, the index, signatures. Speaks the OCI distribution API over the standard
library's HTTP: resolving may not cost the import of a client library."""
