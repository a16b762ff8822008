"""The HTTP API: a small router for each thing that can be asked for."""

from fastapi import APIRouter

from explorer.api import decisions, images, maps, reviews, searches, state


def routers() -> list[APIRouter]:
    """All routers, to be put under one prefix."""
    return [images.router, searches.router, reviews.router, maps.router, decisions.router, state.router]
