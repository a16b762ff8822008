# The orchestrator and every command that needs no network: small, without torch.
#
# A digest makes the base exact: --build-arg PYTHON=python:3.11-slim-bookworm@sha256:...
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
RUN python -m venv /opt/lookalike
ENV PATH=/opt/lookalike/bin:$PATH
COPY requirements/orchestrator.lock /src/requirements/
# Exact versions, held to the hashes of their files. Before the code, so that a change of that keeps this layer.
RUN pip install --no-cache-dir --require-hashes -r /src/requirements/orchestrator.lock
COPY pyproject.toml README.md LICENSE /src/
COPY migrations /src/migrations
COPY lookalike /src/lookalike
COPY orchestrator /src/orchestrator
COPY workers /src/workers
COPY explorer /src/explorer
COPY cli /src/cli
RUN pip install --no-cache-dir --no-deps --no-build-isolation /src

FROM ${PYTHON}
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="lookalike orchestrator" \
      org.opencontainers.image.description="Decides what must be embedded; and every command without a network" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN useradd --uid 10001 --create-home lookalike
WORKDIR /home/lookalike
COPY --from=build /opt/lookalike /opt/lookalike
ENV PATH=/opt/lookalike/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LOOKALIKE_LOG_FORMAT=json \
    LOOKALIKE_METRICS_PORT=9464 \
    LOOKALIKE_METRICS_ADDRESS=0.0.0.0
# By number: Kubernetes cannot tell from a name that it is not root.
USER 10001
EXPOSE 9464
HEALTHCHECK --interval=30s --timeout=20s --start-period=5m --retries=3 CMD ["lookalike", "ready", "orchestrator"]
STOPSIGNAL SIGTERM
CMD ["lookalike", "orchestrate"]
