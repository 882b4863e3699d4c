# Reads a working tree for srl_swe.sandbox.working_tree, in the sandbox that it lies in:
#     collect.sh list PRIVATE WORKDIR BASE_COMMIT     what has changed
#     collect.sh pack PRIVATE WORKDIR BASE_COMMIT     the contents of what PRIVATE/chosen names
# Of the repository only objects, refs and exclude file are used. Its index, locks, configuration,
# hooks and HEAD may be in any state and are not touched: git works on a repository in PRIVATE.
# The answer is PRIVATE/answer: a line with the length of each part in bytes, then the parts.
set -eu
umask 077
phase=$1 private=$2 workdir=$3 base=$4
max_list=20000000 max_contents=50000000 # bytes; both parts fit into one file that can be read

unset "${!GIT_@}"
export HOME=$private XDG_CONFIG_HOME=$private LC_ALL=C
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
export GIT_ATTR_NOSYSTEM=1 GIT_NO_REPLACE_OBJECTS=1
export GIT_DIR=$private/git GIT_INDEX_FILE=$private/index

cd -- "$workdir"
top=$PWD
while [[ -n $top && ! -e $top/.git ]]; do top=${top%/*}; done
export GIT_WORK_TREE=${top:-/}
cd -- "$GIT_WORK_TREE"

answer() { # answer PART...
    wc -c "$@" | while read -r length name; do [[ $name == total ]] || printf '%s ' "$length"; done
    echo
    cat -- "$@"
}

find_repository() { # sets repository and common, which differ in a linked worktree
    local word
    repository=.git
    if [[ -f .git ]]; then read -r word repository <.git; fi
    common=$repository
    if [[ -f $repository/commondir ]]; then
        read -r word <"$repository/commondir"
        common=$repository/$word
        [[ $word != /* ]] || common=$word
    fi
    common=$(cd -- "$common" && pwd -P)
}

make_private() {
    local filemode=true
    mkdir -p "$GIT_DIR"/{objects/info,refs,info}
    if [[ -f $common/config ]]; then
        filemode=$(git config -f "$common/config" --bool core.filemode 2>/dev/null || echo true)
    fi
    printf '[core]\nrepositoryformatversion = 0\nbare = false\nfilemode = %s\nfsmonitor = false
untrackedCache = false\nlooseCompression = 1\nhooksPath = /dev/null\nattributesFile = /dev/null
excludesFile = /dev/null\nautocrlf = false\n[gc]\nauto = 0\n' "$filemode" >"$GIT_DIR/config"
    printf '%s\n' "$common/objects" >"$GIT_DIR/objects/info/alternates"
    echo ref: refs/heads/none >"$GIT_DIR/HEAD"
    if [[ -f $common/info/exclude ]]; then cp -- "$common/info/exclude" "$GIT_DIR/info/"; fi
    if [[ ! $base =~ ^[0-9a-f]{40}$ ]]; then # a name
        cp -R -- "$common/refs" "$GIT_DIR/"
        for name in "$common/packed-refs" "$repository/HEAD"; do
            if [[ -f $name ]]; then cp -- "$name" "$GIT_DIR/"; fi
        done
    fi
}

list() {
    find_repository
    make_private
    git read-tree "$base"
    git update-index -q --refresh >/dev/null || true # says by its status that files have changed
    cd -- "$private"
    git diff-files --raw -z --no-renames --ignore-submodules=all >changed
    (cd -- "$GIT_WORK_TREE" && git ls-files -z --others --exclude-standard) |
        { head -c "$max_list" && cat >/dev/null; } >others
    : >roots
    if (($(tr -dc '\0' <others | wc -c) > 200)); then
        (cd -- "$GIT_WORK_TREE" && git ls-files -z --others --exclude-standard --directory) |
            { head -c "$max_list" && cat >/dev/null; } >roots
    fi
    while IFS= read -r -d '' _ && IFS= read -r -d '' path; do
        printf '%s\0' "$path"
    done <changed >names
    cat others >>names
    (cd -- "$GIT_WORK_TREE" && xargs -0 -r stat -c '%f %s %n' -- <"$private/names" || true) \
        2>/dev/null | { head -c "$max_list" && cat >/dev/null; } >stats
    answer changed others roots stats >answer
}

stage() { # one path at a time if not all can be read
    if ! git update-index -z --add --remove --replace --stdin <"$private/chosen" 2>/dev/null; then
        while IFS= read -r -d '' path; do
            printf '%s\0' "$path" |
                git update-index -z --add --remove --replace --stdin 2>/dev/null || true
        done <"$private/chosen"
    fi
}

pack() {
    local old new
    stage
    cd -- "$private"
    git diff-index --cached --raw -z --no-renames --ignore-submodules=all "$base" >changes
    while IFS=' ' read -r -d '' _ _ old new _ && IFS= read -r -d '' _; do
        printf '%s\n' "$old" "$new"
    done <changes | { grep -v '^0*$' || true; } | sort -u |
        git cat-file --batch-check='%(objectsize) %(objectname)' | sort -n >sizes
    # Smallest first: what no longer fits is cut off, and is missing.
    { grep -v 'missing$' sizes || true; } | cut -d ' ' -f 2 | git cat-file --batch |
        { head -c "$max_contents" && cat >/dev/null; } >contents
    answer changes sizes contents >answer
}

"$phase"
