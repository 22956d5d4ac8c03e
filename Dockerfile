# Two images from one file: `light` restores on CPUs and has no TensorFlow, `full` also trains and exports.
#   docker build --target light --tag lacuna:light .
#   docker build --target full --tag lacuna:full .
# BASE is any Debian or Ubuntu with Python 3.11 to 3.13 and its venv module.
ARG BASE=python:3.11-slim-bookworm

# -- the environment with TensorFlow, which also makes the wheel: shipped models are exported for OpenVINO in it
FROM ${BASE} AS exporting
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/lacuna
WORKDIR /build
COPY requirements/full.txt requirements/
RUN /opt/lacuna/bin/pip install --require-hashes -r requirements/full.txt
COPY . .
RUN for weights in trainer/pretrained/*/weights.safetensors; do /opt/lacuna/bin/python -m trainer export "${weights%/*}" || exit 1; done
RUN /opt/lacuna/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/lacuna/bin/pip install --no-deps --no-index --find-links /wheels lacuna

# -- the environment without it
FROM ${BASE} AS serving
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/lacuna
COPY requirements/serving.txt /build/
RUN /opt/lacuna/bin/pip install --require-hashes -r /build/serving.txt
COPY --from=exporting /wheels /wheels
RUN /opt/lacuna/bin/pip install --no-deps --no-index --find-links /wheels lacuna

# -- what both images are beside their environment
FROM ${BASE} AS bare
RUN useradd --system --uid 10001 --home-dir /var/lib/lacuna lacuna && install --directory --owner lacuna /var/lib/lacuna
ENV PATH=/opt/lacuna/bin:$PATH PYTHONUNBUFFERED=1 LACUNA_HOME=/var/lib/lacuna LACUNA_BIND=0.0.0.0:8080
WORKDIR /var/lib/lacuna
VOLUME /var/lib/lacuna
EXPOSE 8080
USER 10001
ENTRYPOINT ["lacunad"]
CMD ["api"]

FROM bare AS full
COPY --from=exporting /opt/lacuna /opt/lacuna

FROM bare AS light
COPY --from=serving /opt/lacuna /opt/lacuna
