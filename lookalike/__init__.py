"""What all sides agree on: settings, the ledger, the queue, vectors and search. It never imports torch."""

__version__ = "0.1.0"
