"""The web page and HTTP API over search."""
