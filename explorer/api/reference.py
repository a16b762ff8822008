"""The page that describes the API: its OpenAPI document as plain HTML, made here and without a script.

The usual page loads scripts from a third party, which this website's browsers would then trust with their tokens; and
an archive behind a firewall would not see it.
"""

import json
from html import escape
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from explorer.prefix import root_of

router = APIRouter(include_in_schema=False)

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>The API of lookalike</title><link rel="stylesheet" href="{root}/api/docs.css"></head><body><main>
"""
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; text-transform: capitalize; } h3 { margin: 2rem 0 0.25rem; font-size: 1rem; }
code, h3, pre { font-family: ui-monospace, monospace; } pre { overflow-x: auto; font-size: 0.85rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
td, th { text-align: left; vertical-align: top; padding: 0.2rem 1rem 0.2rem 0; border-top: 1px solid #8886; }
"""


@router.get("/docs")
def describe_api(request: Request) -> Response:
    """The whole description, for people."""
    document, root = request.app.openapi(), root_of(request)
    schemas = document.get("components", {}).get("schemas", {})
    parts = [
        HEAD.format(root=root),
        f"<h1>The API of {escape(document['info']['title'])} {escape(document['info']['version'])}</h1>",
        f"<p>{escape(document['info'].get('description', ''))}</p>",
        f'<p>For programs: <a href="{root}/api/openapi.json">openapi.json</a>.</p>',
    ]
    for tag, operations in _by_tag(document).items():
        parts.append(f"<section><h2>{escape(tag)}</h2>")
        parts += [_operation(method, root + path, one, schemas) for method, path, one in operations]
        parts.append("</section>")
    parts.append("</main></body></html>")
    return HTMLResponse("\n".join(parts), headers={"Cache-Control": "public, max-age=300"})


@router.get("/docs.css")
def show_style() -> Response:
    """How the page looks."""
    return Response(STYLE, media_type="text/css", headers={"Cache-Control": "public, max-age=86400"})


def _by_tag(document: dict[str, Any]) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    found: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            found.setdefault(operation.get("tags", ["other"])[0], []).append(
                (method.upper(), path, operation)
            )
    return found


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    rows = "".join(_parameter(one) for one in operation.get("parameters", []))
    table = f"<table><tr><th>parameter</th><th>is</th><th></th></tr>{rows}</table>" if rows else ""
    answers = "".join(
        _content(f"answers {code}", one, schemas) for code, one in operation["responses"].items()
    )
    return (
        f"<article><h3>{method} {escape(path)}</h3><p>{escape(operation.get('description', ''))}</p>{table}"
        f"{_content('sends', operation.get('requestBody', {}), schemas)}"
        f"{answers}</article>"
    )


def _parameter(one: dict[str, Any]) -> str:
    schema = one["schema"]
    default = f", else {schema['default']}" if schema.get("default") is not None else ""
    needed = ", needed" if one.get("required") else ""
    name = f"<code>{escape(one['name'])}</code>"
    said = escape(f"{_type(schema)}{needed}{default}")
    return f"<tr><td>{name}</td><td>{said}</td><td>{escape(one.get('description', ''))}</td></tr>"


def _content(title: str, body: dict[str, Any], schemas: dict[str, Any]) -> str:
    """What a request holds or an answer, as JSON with the types of its values."""
    if title.endswith(" 422"):
        return ""
    parts = []
    for kind, content in body.get("content", {}).items():
        shown = json.dumps(_shape(content.get("schema", {}), schemas), indent=1, ensure_ascii=False)
        parts.append(
            f"<details><summary>{escape(f'{title}, {kind}')}</summary><pre>{escape(shown)}</pre></details>"
        )
    return "".join(parts)


def _shape(schema: dict[str, Any], schemas: dict[str, Any], depth: int = 0) -> Any:
    """A schema as an example of what it describes."""
    if "$ref" in schema and depth < 6:
        return _shape(schemas[schema["$ref"].rpartition("/")[2]], schemas, depth + 1)
    if schema.get("type") == "array":
        return [_shape(schema.get("items", {}), schemas, depth + 1)]
    if "properties" in schema:
        return {name: _shape(one, schemas, depth + 1) for name, one in schema["properties"].items()}
    return _type(schema)


def _type(schema: dict[str, Any]) -> str:
    """The type of a value in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(str(one) for one in schema["enum"])
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    word = str(schema.get("format") or schema.get("type") or "anything")
    lo, hi = schema.get("minimum"), schema.get("maximum")
    return f"{word} {lo:g}..{hi:g}" if lo is not None and hi is not None and hi < 2**32 else word
