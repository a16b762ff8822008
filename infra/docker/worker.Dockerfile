# The worker, with the weights of the default encoder inside: it starts without any model hub. And, of the same layers, the
# explorer (--target explorer): to search with a picture takes all that a worker takes.
#
# A digest makes the base exact: --build-arg PYTHON=python:3.11-slim-bookworm@sha256:...
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
# Where torch comes from: https://download.pytorch.org/whl/cpu is without CUDA and 2 GB smaller; empty: CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/lookalike
ENV PATH=/opt/lookalike/bin:$PATH
COPY requirements/worker.lock requirements/worker-cpu.lock /src/requirements/
# Exact versions, held to the hashes of their files; but torch without CUDA, of which only the version is known: that
# index has files of its own. Before the code, so that a change of that keeps these gigabytes.
RUN if [ -z "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir --require-hashes -r /src/requirements/worker.lock; \
    else \
        grep -Eo '^(torch|torchvision)==[0-9.]+' /src/requirements/worker.lock > /src/requirements/torch.txt && \
        pip install --no-cache-dir --require-hashes --no-deps -r /src/requirements/worker-cpu.lock && \
        pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" -r /src/requirements/torch.txt; \
    fi
COPY pyproject.toml README.md LICENSE /src/
COPY migrations /src/migrations
COPY lookalike /src/lookalike
COPY orchestrator /src/orchestrator
COPY workers /src/workers
COPY explorer /src/explorer
COPY cli /src/cli
RUN pip install --no-cache-dir --no-deps --no-build-isolation /src
# Weights of further encoders to bake in, which are downloaded now: --build-arg ENCODERS="resnet50 vgg16-fc7".
ARG ENCODERS=""
RUN mkdir /opt/weights && for encoder in $ENCODERS; do \
        lookalike encoders fetch "$encoder" --to /opt/weights || exit 1; \
    done

FROM ${PYTHON} AS runtime
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The cache takes a volume, which gets its owner from here: the rest of the file system may be read-only.
RUN useradd --uid 10001 --create-home lookalike && install --directory --owner lookalike /home/lookalike/.cache
WORKDIR /home/lookalike
COPY --from=build /opt/lookalike /opt/lookalike
COPY --from=build /opt/weights /opt/weights
ENV PATH=/opt/lookalike/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LOOKALIKE_HOME=/home/lookalike/.cache/lookalike \
    LOOKALIKE_WEIGHTS_DIR=/opt/weights \
    LOOKALIKE_LOG_FORMAT=json
# By number: Kubernetes cannot tell from a name that it is not root.
USER 10001
STOPSIGNAL SIGTERM

FROM runtime AS explorer
LABEL org.opencontainers.image.title="lookalike explorer" \
      org.opencontainers.image.description="The web page and HTTP API; searches with pictures on the processor"
# Figures have a port of their own, which is not to be published.
ENV LOOKALIKE_METRICS_PORT=9464 \
    LOOKALIKE_METRICS_ADDRESS=0.0.0.0
EXPOSE 8080
EXPOSE 9464
HEALTHCHECK --interval=30s --timeout=10s --start-period=2m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=8)"]
CMD ["lookalike", "serve", "--host", "0.0.0.0", "--port", "8080"]

FROM runtime AS worker
LABEL org.opencontainers.image.title="lookalike worker" \
      org.opencontainers.image.description="Turns images into vectors"
ENV LOOKALIKE_METRICS_PORT=9464 \
    LOOKALIKE_METRICS_ADDRESS=0.0.0.0
EXPOSE 9464
HEALTHCHECK --interval=30s --timeout=20s --start-period=5m --retries=3 CMD ["lookalike", "ready", "worker"]
CMD ["lookalike", "worker"]
