"""A real registry on this machine: Debian's docker-registry with TLS and a password, and what may go wrong with it."""
