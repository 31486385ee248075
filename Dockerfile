# syncd's image. Builds with or without BuildKit:
#   make image        (tags it with the version of pyproject.toml too)
#   docker build -t syncd .
# The base is pinned by its tag; pin it further with --build-arg BASE_IMAGE=python:3.12-slim-trixie@sha256:...
# BASE_IMAGE can be any Debian image with glibc 2.38 or newer and a python3 of 3.11 or newer with its venv module.
ARG BASE_IMAGE=python:3.12-slim-trixie

# --- A SQLite without the WAL-reset bug (3.51.3 or newer). No stable Debian has one, so apt fetches this one library
# from Debian's testing suite and checks its signatures. On x86-64 the package pysqlite3 contains a SQLite of its own. On
# ARM it has no wheel for Linux, so the image needs this library.
FROM ${BASE_IMAGE} AS sqlite
ARG SQLITE_SUITE=forky
WORKDIR /sqlite
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN codename="$(. /etc/os-release && echo "${VERSION_CODENAME}")"; \
    cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null > found || true; \
    mirror="$(grep -oE 'https?://[^ ]+/debian/?( |$)' found | head -n 1 | tr -d ' ')"; \
    echo "deb ${mirror:?no Debian mirror in the sources of the base image, ${codename}} ${SQLITE_SUITE} main" > suite.list; \
    apt-get -o Dir::Etc::sourcelist=/sqlite/suite.list -o Dir::Etc::sourceparts=- update -qq; \
    apt-get -o Dir::Etc::sourcelist=/sqlite/suite.list -o Dir::Etc::sourceparts=- download -qq libsqlite3-0; \
    dpkg-deb -x libsqlite3-0_*.deb unpacked; \
    mkdir lib; \
    cp -L unpacked/usr/lib/*/libsqlite3.so.0 lib/

# --- syncd and its dependencies, verified by hash, in a virtual environment.
FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
# hadolint ignore=DL3008
RUN apt-get update -qq \
    && apt-get install -qq --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
RUN ["python3", "-m", "venv", "/opt/syncd"]
COPY requirements/runtime.txt requirements/build.txt requirements/
RUN /opt/syncd/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements/runtime.txt \
    && python3 -m venv --system-site-packages /opt/builder \
    && /opt/builder/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements/build.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY migrations migrations
COPY syncd syncd
RUN /opt/builder/bin/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir /wheel . \
    && /opt/syncd/bin/python -m pip install --quiet --no-deps --no-index /wheel/*.whl \
    && /opt/syncd/bin/python -m pip uninstall --quiet --yes pip \
    && find /opt/syncd -name '*.so*' -type f -exec strip --strip-debug {} + \
    && python3 -m compileall -q /opt/syncd/lib

# --- The final image.
FROM ${BASE_IMAGE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="syncd" \
      org.opencontainers.image.description="Mirrors Albert chat sessions into a local SQL database" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=sqlite /sqlite/lib/ /usr/local/lib/
COPY --from=build /opt/syncd /opt/syncd
ENV PATH=/opt/syncd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SYNCD_LOG_FORMAT=json
# Check the SQLite library that Python loads, and create the volume for the user that writes to it.
RUN ldconfig \
    && python -c "import sqlite3, sys; sys.exit(sqlite3.sqlite_version_info < (3, 51, 3) and sqlite3.sqlite_version)" \
    && syncd --version \
    && mkdir /data && chown 10001:10001 /data && chmod 0750 /data
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["syncd", "healthcheck"]
ENTRYPOINT ["syncd"]
CMD ["run"]
