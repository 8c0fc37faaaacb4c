"""The kit for plugin authors: contracts, a reference book, strategies and a venue on loopback."""
