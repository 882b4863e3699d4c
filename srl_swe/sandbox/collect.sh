# Reads a working tree for srl_swe.sandbox.working_tree, in the sandbox that it lies in:
#     collect.sh list PRIVATE WORKDIR BASE_COMMIT       what has changed: PRIVATE/status and stats
#     collect.sh collapse PRIVATE WORKDIR BASE_COMMIT   the same, new folders by their names only
#     collect.sh folders PRIVATE WORKDIR BASE_COMMIT    folders without tracked files: folders
#     collect.sh pack PRIVATE WORKDIR BASE_COMMIT [PATHS]   of PRIVATE/chosen: changes and contents
# PATHS are the chosen ones in base64, if they are few. The answer lies in files of PRIVATE; short
# ones are printed too, one per line in base64, and are then not read through the sandbox.
# Of the repository only objects, refs, exclude file and core.fileMode are used. Its index, locks,
# hooks and HEAD may be in any state and are not touched: git works on a repository in PRIVATE.
# Every rollout waits for this, so it starts no process that it can do without.
set -eu
umask 077
phase=$1 private=$2 workdir=$3 base=$4 paths=${5-}
short=12000 # bytes; SHORT_BYTES in working_tree.py
largest=$((16 << 20)) most=$((48 << 20)) # bytes of one file, and of all

export HOME=$private XDG_CONFIG_HOME=$private LC_ALL=C
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
export GIT_ATTR_NOSYSTEM=1 GIT_NO_REPLACE_OBJECTS=1
export GIT_DIR=$private/git GIT_INDEX_FILE=$private/index

cd -- "$workdir"
top=$PWD
while [[ -n $top && ! -e $top/.git ]]; do top=${top%/*}; done
[[ -n $top ]] || { echo "there is no repository" >&2; exit 1; }
export GIT_WORK_TREE=$top
cd -- "$top"

find_repository() { # sets repository and common, which differ in a linked worktree
    local word
    repository=$PWD/.git
    if [[ -f .git ]]; then
        read -r word repository <.git
        [[ $repository == /* ]] || repository=$PWD/$repository
    fi
    common=$repository
    if [[ -f $repository/commondir ]]; then
        read -r common <"$repository/commondir"
        [[ $common == /* ]] || common=$repository/$common
    fi
}

file_mode() { # prints what the repository's configuration has
    local line mode=true
    if [[ -f $common/config ]]; then
        while read -r line; do
            [[ ! ${line,,} =~ ^filemode[[:space:]]*=[[:space:]]*false ]] || mode=false
        done <"$common/config"
    fi 2>/dev/null
    printf %s "$mode"
}

make_private() {
    mkdir -p "$GIT_DIR"/{objects/info,refs,info}
    printf '[core]\nrepositoryformatversion = 0\nbare = false\nfileMode = %s\nfsmonitor = false
untrackedCache = false\nlooseCompression = 1\nhooksPath = /dev/null\nattributesFile = /dev/null
excludesFile = /dev/null\nautocrlf = false\n[gc]\nauto = 0\n' "$(file_mode)" >"$GIT_DIR/config"
    printf '%s\n' "$common/objects" >"$GIT_DIR/objects/info/alternates"
    if [[ -f $common/info/exclude ]]; then
        printf '%s\n' "$(<"$common/info/exclude")" >"$GIT_DIR/info/exclude"
    fi 2>/dev/null
    if [[ $base =~ ^[0-9a-f]{40}$ ]]; then
        echo "$base" >"$GIT_DIR/HEAD"
    else # a name
        cp -R -- "$common/refs" "$GIT_DIR/"
        for name in "$common/packed-refs" "$repository/HEAD"; do
            if [[ -f $name ]]; then cp -- "$name" "$GIT_DIR/"; fi
        done
        git rev-parse --verify "$base^{commit}" >"$private/commit"
        mv -- "$private/commit" "$GIT_DIR/HEAD"
    fi
}

refuse_pipes() { # for which git would wait
    local found
    found=$(find . -path ./.git -prune -o \( -name .gitignore -o -name .gitattributes \) \
        ! -type f ! -type d ! -type l -print -quit)
    if [[ -n $found ]]; then
        echo "${found#./} is not a file" >&2
        exit 1
    fi
}

list() {
    find_repository
    refuse_pipes
    make_private
    git read-tree HEAD
    [[ -s $GIT_INDEX_FILE ]] || { echo "git does nothing" >&2; exit 1; }
    list_files all
}

collapse() { # after list: of a new folder only its name
    list_files normal
}

list_files() {
    local entry
    git status --porcelain=v2 -z --no-renames --untracked-files="$1" --ignore-submodules=all \
        >"$private/status"
    while IFS= read -r -d '' entry; do
        case $entry in
            '? '*) printf '%s\0' "${entry#* }" ;;
            '1 '*) printf '%s\0' "${entry#* * * * * * * * }" ;;
        esac
    done <"$private/status" >"$private/names"
    # In the same order; of files that have gone there is no line.
    xargs -0 -r stat -c '%f %s %n' -- <"$private/names" >"$private/stats" 2>/dev/null || true
    answer status stats
}

answer() { # answer NAME...: prints a line per file, cut at its limit
    local name
    for name; do
        if [[ -s $private/$name ]]; then head -c "$short" "$private/$name" | base64 -w 0; fi
        echo " $name"
    done
}

folders() {
    git ls-files -z --others --exclude-standard --directory >"$private/folders"
}

stage() { # one path at a time if not all can be read
    local path
    if ! git update-index -z --add --remove --replace --stdin <"$private/chosen" 2>/dev/null; then
        while IFS= read -r -d '' path; do
            printf '%s\0' "$path" |
                git update-index -z --add --remove --replace --stdin 2>/dev/null || true
        done <"$private/chosen"
    fi
}

wanted_objects() { # of the sizes on stdin: small ones first, and none beyond the limits
    local id size large=() total=0
    while read -r id size; do
        if [[ $size == missing ]] || ((size < 100000 && (total += size) <= most)); then
            echo "$id"
        elif ((size <= largest)); then
            large+=("$size $id")
        fi
    done
    for entry in "${large[@]}"; do
        if (((total += ${entry% *}) <= most)); then echo "${entry#* }"; fi
    done
}

pack() {
    local old new
    if [[ $paths ]]; then base64 -d <<<"$paths" >"$private/chosen"; fi
    stage
    git diff-index --cached --raw -z --no-renames --ignore-submodules=all HEAD >"$private/changes"
    while IFS=' ' read -r -d '' _ _ old new _ && IFS= read -r -d '' _; do
        [[ $old =~ ^0*$ ]] || echo "$old"
        [[ $new =~ ^0*$ ]] || echo "$new"
    done <"$private/changes" |
        git cat-file --batch-check='%(objectname) %(objectsize)' |
        wanted_objects |
        git cat-file --batch >"$private/contents"
    answer changes contents
}

"$phase"
