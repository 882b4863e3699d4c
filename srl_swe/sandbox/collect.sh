# Reads a working tree for srl_swe.sandbox.working_tree, in the sandbox that it lies in:
#     collect.sh list PRIVATE WORKDIR BASE_COMMIT       what has changed: PRIVATE/listing
#     collect.sh collapse PRIVATE WORKDIR BASE_COMMIT   the same, new folders by their names only
#     collect.sh folders PRIVATE WORKDIR BASE_COMMIT    folders without tracked files: folders
#     collect.sh pack PRIVATE WORKDIR BASE_COMMIT       of PRIVATE/chosen: packed
# A few small files are packed by `list`, as if all of them were chosen. The answers are printed
# then, in base64, and PRIVATE is removed.
# Of the repository only objects, refs, exclude file and core.fileMode are used. Its index, locks,
# hooks and HEAD may be in any state and are not touched: git works on a repository in PRIVATE.
# Every rollout waits for this, so it starts no process that it can do without.
set -eu
umask 077
phase=$1 private=$2 workdir=$3 base=$4
largest=$((16 << 20)) most=$((48 << 20)) # bytes of one file, and of all
few=${5-0} short=10000 # files and bytes that are printed

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

read_file_mode() { # sets file_mode to that of the repository's configuration
    local line
    file_mode=true
    if [[ -f $common/config ]]; then
        while read -r line; do
            [[ ! ${line,,} =~ ^filemode[[:space:]]*=[[:space:]]*false ]] || file_mode=false
        done <"$common/config"
    fi 2>/dev/null
}

make_private() {
    local lines
    read_file_mode
    mkdir -p "$GIT_DIR"/{objects/info,refs,info}
    printf '[core]\nrepositoryformatversion = 0\nbare = false\nfileMode = %s\nfsmonitor = false
untrackedCache = false\nlooseCompression = 1\nhooksPath = /dev/null\nattributesFile = /dev/null
excludesFile = /dev/null\nautocrlf = false\n[gc]\nauto = 0\n' "$file_mode" >"$GIT_DIR/config"
    printf '%s\n' "$common/objects" >"$GIT_DIR/objects/info/alternates"
    if [[ -f $common/info/exclude ]]; then
        mapfile -t lines <"$common/info/exclude"
        printf '%s\n' "${lines[@]}" >"$GIT_DIR/info/exclude"
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

list() { # list PRIVATE WORKDIR BASE_COMMIT FEW: so many files are packed and printed
    local packed_bytes=0
    find_repository
    refuse_pipes
    make_private
    git read-tree HEAD
    [[ -s $GIT_INDEX_FILE ]] || { echo "git does nothing" >&2; exit 1; }
    list_files all
    are_few_and_small || return 0
    if ((${#names[@]})); then
        printf '%s\0' "${names[@]}" >"$private/chosen"
        pack_into listing
    fi
    if ((packed_bytes <= short)); then
        base64 -w 0 "$private/listing"
        echo " whole"
        rm -rf -- "$private"
    fi
}

collapse() { # after list: of a new folder only its name
    list_files normal
}

list_files() { # writes git's status, an empty entry, and a line per file that is there; sets names
    local entry
    names=()
    git status --porcelain=v2 -z --no-renames --untracked-files="$1" --ignore-submodules=all \
        >"$private/listing"
    while IFS= read -r -d '' entry; do
        case $entry in
            '? '*) names+=("${entry#* }") ;;
            '1 '*) names+=("${entry#* * * * * * * * }") ;;
        esac
    done <"$private/listing"
    printf '\0' >>"$private/listing"
    printf '%s\0' "${names[@]}" >"$private/names"
    if ((${#names[@]} > few)); then
        xargs -0 stat -c '%f %s %n' -- <"$private/names"
    elif ((${#names[@]})); then
        stat -c '%f %s %n' -- "${names[@]}"
    fi >>"$private/listing" 2>/dev/null || true
}

are_few_and_small() {
    local entries mode size total=0
    ((${#names[@]} <= few)) || return
    mapfile -t -d '' entries <"$private/listing"
    while read -r mode size _; do
        [[ -z $mode || $mode =~ ^(81|a1)..$ && $size =~ ^[0-9]+$ ]] || return
        (((total += size) <= short)) || return
    done <<<"${entries[-1]}"
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
    local id size large=()
    packed_bytes=0
    while read -r id size; do
        if [[ $size == missing ]] || ((size < 100000 && (packed_bytes += size) <= most)); then
            echo "$id"
        elif ((size <= largest)); then
            large+=("$size $id")
        fi
    done
    for entry in "${large[@]}"; do
        if (((packed_bytes += ${entry% *}) <= most)); then echo "${entry#* }"; fi
    done
}

pack() {
    : >"$private/packed"
    pack_into packed
}

pack_into() { # appends an empty entry, git's changes, another empty one, and the objects
    local entries old new
    stage
    git diff-index --cached --raw -z --no-renames --ignore-submodules=all HEAD >"$private/changes"
    while IFS=' ' read -r -d '' _ _ old new _ && IFS= read -r -d '' _; do
        [[ $old =~ ^0*$ ]] || echo "$old"
        [[ $new =~ ^0*$ ]] || echo "$new"
    done <"$private/changes" >"$private/objects"
    git cat-file --batch-check='%(objectname) %(objectsize)' <"$private/objects" >"$private/sizes"
    wanted_objects <"$private/sizes" >"$private/objects"
    mapfile -t -d '' entries <"$private/changes"
    {
        printf '\0'
        if ((${#entries[@]})); then printf '%s\0' "${entries[@]}"; fi
        printf '\0'
        git cat-file --batch <"$private/objects"
    } >>"$private/$1"
}

"$phase"
