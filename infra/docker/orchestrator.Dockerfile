# syntax=docker/dockerfile:1
# The orchestrator and every command that needs no network: small, without torch.
FROM python:3.11-slim

RUN useradd --uid 10001 --create-home lookalike
WORKDIR /home/lookalike

COPY pyproject.toml README.md LICENSE /src/
COPY migrations /src/migrations
COPY lookalike /src/lookalike
COPY orchestrator /src/orchestrator
COPY workers /src/workers
COPY cli /src/cli
RUN --mount=type=cache,target=/root/.cache/pip pip install --root-user-action=ignore "/src[catalogue,inventory]"

# By number: Kubernetes cannot tell from a name that it is not root.
USER 10001
STOPSIGNAL SIGTERM
CMD ["lookalike", "orchestrate"]
