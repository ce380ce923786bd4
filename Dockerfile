# syntax=docker/dockerfile:1
# One image for every process of the fleet: worker (by default), publisher, migrations.

FROM python:3.12-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# strip, for the libraries. Its version follows the base image's release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/* \
    && python -m venv --without-pip /opt/signal-worker
WORKDIR /source
COPY deploy/lock-serving.txt deploy/lock-build.txt deploy/slim.sh deploy/
# Neither the embedded servers nor Qlib and MLflow: serving needs none of them. What builds the wheel stays in this stage.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/signal-worker/bin/python install --no-compile --require-hashes --no-deps --requirement deploy/lock-serving.txt \
    && python -m venv /opt/build \
    && /opt/build/bin/python -m pip install --require-hashes --no-deps --requirement deploy/lock-build.txt
COPY pyproject.toml README.md ./
COPY contracts contracts
COPY migrations migrations
COPY strategies strategies
COPY worker worker
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m pip --python /opt/signal-worker/bin/python install --no-compile --no-index --no-deps /wheels/*.whl \
    && deploy/slim.sh /opt/signal-worker --strip

FROM python:3.12-slim-trixie
# LightGBM's wheel expects the system's OpenMP runtime; its version follows the base image's release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 signals \
    && useradd --uid 10001 --gid signals --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin signals \
    && install -d -o signals -g signals /var/cache/numba /data /artifacts
COPY --from=build /opt/signal-worker /opt/signal-worker
# The image holds no byte code; what a process compiles at its first start is kept beside the kernels' machine code.
ENV PATH=/opt/signal-worker/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONPYCACHEPREFIX=/var/cache/numba/bytecode \
    NUMBA_CACHE_DIR=/var/cache/numba \
    SIGNALS_DATA_DIR=/data \
    SIGNALS_ARTIFACTS_DIR=/artifacts \
    SIGNALS_HEALTH_PORT=8080
USER 10001:10001
WORKDIR /
# Alive, not ready: a worker without its servers waits for them, and a restart would not bring them back sooner.
# With `run --processes N` this asks the first worker; the supervisor itself replaces any that hangs or dies.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez', timeout=2)"]
ENTRYPOINT ["signal-worker"]
CMD ["run"]
