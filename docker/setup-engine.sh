#!/bin/sh
# Has a container engine answer: the one at DOCKER_HOST or the local socket, else one that is
# installed (Debian, Ubuntu; as root) and started here. Does nothing in a second if one answers.
set -eu
cache=.cache
log=$cache/dockerd.log

say() { echo "set-up: $*"; }
give_up() {
    echo "set-up: $*" >&2
    exit 2
}
is_root() { [ "$(id -u)" = 0 ]; }
answers() { timeout 10 docker info >/dev/null 2>&1; }
running() { timeout 10 docker version --format '{{.Server.Version}}'; }

install_packages() {
    is_root || give_up "no $1 here; install it as root: apt-get install docker.io, or see https://docs.docker.com/engine/install/"
    command -v apt-get >/dev/null || give_up "no $1 here, and no apt-get; see https://docs.docker.com/engine/install/"
    say "installing docker.io (a minute)"
    export DEBIAN_FRONTEND=noninteractive
    set -- docker.io ca-certificates iptables
    # Debian 13 and later have the client in a package of its own.
    if apt-cache show docker-cli >/dev/null 2>&1; then set -- "$@" docker-cli; fi
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 && return
    apt-get update -qq
    if apt-cache show docker-cli >/dev/null 2>&1; then set -- "$@" docker-cli; fi
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

wait_for_answer() { # wait_for_answer SECONDS [PID]: false at once if PID ends
    seconds=$1
    while [ "$seconds" -gt 0 ]; do
        answers && return
        if [ $# -gt 1 ] && ! kill -0 "$2" 2>/dev/null; then return 1; fi
        sleep 1
        seconds=$((seconds - 1))
    done
    return 1
}

start_dockerd() { # start_dockerd [option of dockerd..]
    say "starting dockerd $* (log: $log)"
    mkdir -p "$cache"
    nohup dockerd "$@" >"$log" 2>&1 </dev/null &
    echo $! >"$cache/dockerd.pid"
    wait_for_answer 40 "$(cat "$cache/dockerd.pid")" && return
    kill "$(cat "$cache/dockerd.pid")" 2>/dev/null || true
    sleep 2
    say "it did not come up: $(grep -i -e failed -e error "$log" | tail -n 1 | cut -c 1-300)"
    return 1
}

command -v docker >/dev/null || install_packages "docker client (swebench's harness needs it)"
if answers; then
    say "the engine answers at ${DOCKER_HOST:-the local socket}, version $(running)"
    exit
fi
if [ -n "${DOCKER_HOST:-}" ]; then
    give_up "no engine answers at DOCKER_HOST=$DOCKER_HOST; start it, or unset DOCKER_HOST"
fi
if ! is_root; then
    give_up "no engine answers at the local socket: start Docker (sudo systemctl start docker) and have permission (sudo usermod -aG docker $(id -un), then log in again), or set DOCKER_HOST"
fi
command -v dockerd >/dev/null || install_packages dockerd
if [ -d /run/systemd/system ]; then
    say "starting docker by systemctl"
    systemctl start docker || true
    wait_for_answer 40 || give_up "docker does not come up; see: journalctl -u docker"
else
    # Without rights over iptables there is no bridge; sandboxes have no network, builds use the
    # host's. Without overlayfs there is vfs, which is slow.
    wait_for_answer 1 ||
        start_dockerd ||
        start_dockerd --iptables=false --ip6tables=false --bridge=none ||
        start_dockerd --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs ||
        give_up "dockerd can't run here (a container needs --privileged); set DOCKER_HOST to another engine. Log: $log"
fi
say "the engine answers, version $(running)"
