"""What an action costs in a sandbox, against an exec of its own through the docker package."""

from __future__ import annotations

import docker
from bench_table import Row, compare_seconds, publish

from srl_swe.instances import load_instances
from srl_swe_envs.docker import open_docker_sandbox


def rows() -> list[Row]:
    """Commands that do nothing, and one that prints 100 kB; both in the same container."""
    instance = load_instances("starter")[0]
    client = docker.from_env()
    with open_docker_sandbox(instance) as sandbox:
        container = client.containers.get(sandbox.container_id)

        def compare(metric: str, command: str, n: int) -> Row:
            return compare_seconds(
                metric,
                lambda: sandbox.exec(command),
                lambda: container.exec_run(["bash", "-c", command]),
                "docker SDK exec_run",
                n,
            )

        return [
            compare("action_overhead_ms_p50", "true", 200),
            compare("print_100_kB_ms_p50", "head -c 100000 /dev/zero | tr '\\0' x", 50),
        ]


if __name__ == "__main__":
    publish("One action in a sandbox", rows())
