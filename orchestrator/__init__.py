"""Decides what must be embedded: sources, dispatch and sweep. It never imports torch."""
