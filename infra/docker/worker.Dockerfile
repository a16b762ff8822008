# syntax=docker/dockerfile:1
# The worker, with the weights of the default encoder inside: it starts without any model hub.
FROM python:3.11-slim

# Where torch comes from: https://download.pytorch.org/whl/cpu is without CUDA and 2 GB smaller; empty: CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# The cache takes a volume, which gets its owner from here: the rest of the file system may be read-only.
RUN useradd --uid 10001 --create-home lookalike && install --directory --owner lookalike /home/lookalike/.cache
WORKDIR /home/lookalike

COPY requirements /src/requirements
# Exact versions, held to the hashes of their files; but torch without CUDA, of which only the version is known: that
# index has files of its own. Before the code, so that a change of that keeps these gigabytes.
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ -z "$TORCH_INDEX" ]; then \
        pip install --root-user-action=ignore --require-hashes -r /src/requirements/worker.lock; \
    else \
        pip install --root-user-action=ignore --require-hashes --no-deps -r /src/requirements/worker-cpu.lock && \
        pip install --root-user-action=ignore --no-deps --index-url "$TORCH_INDEX" \
            $(grep -Eo '^(torch|torchvision)==[0-9.]+' /src/requirements/worker.lock); \
    fi

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
CMD ["lookalike", "worker"]
