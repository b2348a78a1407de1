"""A model hub on the loopback interface, for tests of downloads: real HTTP, real sockets, faults on request."""
