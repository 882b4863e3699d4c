#!/bin/sh
# What the tests of HTML pages need: a chromium (Debian's; as root) and axe-core's rules (by npm).
# Tests skip with a reason if one of them can't be had. Does nothing in a second if both are here.
set -eu
axe=4.14.1
folder=.cache/axe-core

say() { echo "set-up: $*"; }

has_browser() {
    for name in chromium chromium-browser google-chrome; do
        if command -v "$name" >/dev/null; then return; fi
    done
    return 1
}

if ! has_browser; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing chromium (a minute)"
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1 ||
            { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } ||
            say "chromium can't be installed: the tests in a browser are skipped"
    else
        say "no chromium here; install it as root: apt-get install chromium. Until then the tests in a browser are skipped"
    fi
fi

if [ "$(cat "$folder/version" 2>/dev/null)" != "$axe" ]; then
    if command -v npm >/dev/null && mkdir -p "$folder" &&
        (cd "$folder" && npm pack --silent "axe-core@$axe" >/dev/null &&
            tar -xzf "axe-core-$axe.tgz" --strip-components=1 package/axe.min.js package/LICENSE); then
        rm -f "$folder/axe-core-$axe.tgz"
        echo "$axe" >"$folder/version"
        say "axe-core $axe is in $folder"
    else
        say "npm can't get axe-core: the tests of accessibility are skipped"
    fi
fi
