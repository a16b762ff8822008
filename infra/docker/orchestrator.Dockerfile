# syntax=docker/dockerfile:1
# The orchestrator and every command that needs no network: small, without torch.
FROM python:3.11-slim

RUN useradd --uid 10001 --create-home lookalike
WORKDIR /home/lookalike

COPY requirements /src/requirements
# Exact versions, held to the hashes of their files. Before the code, so that a change of that keeps this layer.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --root-user-action=ignore --require-hashes -r /src/requirements/orchestrator.lock

COPY pyproject.toml README.md LICENSE /src/
COPY migrations /src/migrations
COPY lookalike /src/lookalike
COPY orchestrator /src/orchestrator
COPY workers /src/workers
COPY explorer /src/explorer
COPY cli /src/cli
RUN pip install --root-user-action=ignore --no-deps --no-build-isolation /src

# By number: Kubernetes cannot tell from a name that it is not root.
USER 10001
STOPSIGNAL SIGTERM
CMD ["lookalike", "orchestrate"]
