# For a container that must have no network: fails if it has one. Builtins only: every sandbox
# waits for this.
read_routes() { # read_routes FILE: sets `devices`, one a route, the heading of IPv4's left out
    local route
    devices=()
    while read -r -a route; do devices+=("${route[$2]}"); done <"$1"
}

is_lonely() {
    local devices device
    read_routes /proc/net/route 0
    for device in "${devices[@]:1}"; do return 1; done
    [[ -r /proc/net/ipv6_route ]] || return 0
    read_routes /proc/net/ipv6_route -1
    for device in "${devices[@]}"; do [[ $device == lo ]] || return 1; done
}

if ! is_lonely; then
    echo "it can reach a network, though none was asked for" >&2
    exit 1
fi
