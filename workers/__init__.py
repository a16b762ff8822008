"""Turns images into vectors: fetch, decode, encode, store. torch is imported in `network` only."""
