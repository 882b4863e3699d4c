# What every image of ours is built on: Debian, Python with pip and pytest, git, and an
# init that reaps orphans and stops at once (the harness's `tail -f /dev/null`, as PID 1,
# would ignore SIGTERM for 15 s).
ARG DEBIAN=srl-swe/debian:bookworm
FROM ${DEBIAN}

RUN apt-get update \
 && apt-get install -y --no-install-recommends \
        ca-certificates git patch procps python-is-python3 python3 python3-pip python3-pytest \
        python3-venv tini \
 && rm -rf /var/lib/apt/lists/*

ENV LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0 TZ=UTC
RUN git config --system user.name srl-swe \
 && git config --system user.email srl-swe@example.invalid \
 && git config --system init.defaultBranch main \
 && git config --system advice.detachedHead false

WORKDIR /testbed
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["sleep", "infinity"]
