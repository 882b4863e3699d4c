# What layouts of git history are made with; each runs in a folder of its own that holds the
# repository `r`, a copy of the seed. $base is the commit at which its task begins.
set -e
secret=SECRET-5b1e0c7f93d248a6
export GIT_AUTHOR_DATE='2024-05-05T00:00:00Z' GIT_COMMITTER_DATE='2024-05-05T00:00:00Z'

# Three commits of the past, a branch and three tags of theirs, and a working tree with edits.
seed() {
    git init -q "$1" && cd "$1"
    local day
    mkdir dir
    for day in 1 2 3; do
        seq "$((day * 5))" >file
        echo "of day $day" | tee "dir/other$day" >>dir/other
        printf '*.o\nwt/\n' >.gitignore
        git add -A
        at "$day" git commit -qm "day $day"
        git rev-parse HEAD >>../past
        if [[ $day == 1 ]]; then
            git branch old
            at 1 git tag -a -m 'version one' v1
            git rev-parse v1 >>../past
        elif [[ $day == 2 ]]; then
            git tag v1.1
            at 2 git tag -a -m 'signed again' v1-again v1
        fi
    done
    git repack -adq
    echo edited >>file
    echo untracked >untracked
    echo ignored >made.o
}

at() { GIT_AUTHOR_DATE="2020-01-0$1T00:00:00Z" GIT_COMMITTER_DATE="2020-01-0$1T00:00:00Z" "${@:2}"; }

planted() { echo "$1" >>"$here/future"; echo "$1"; }

# Each stores an object of the future and prints its name; a commit is one on top of $1 or of $base.
blob() { planted "$(echo "$secret blob $RANDOM$RANDOM" | git hash-object -w --stdin)"; }
tree() { planted "$( (git ls-tree "$base"; printf '100644 blob %s\tfixed\n' "$(blob)") | git mktree)"; }
commit() {
    planted "$(git commit-tree -m "$secret commit $RANDOM" -p "${1:-$base}" "$(tree)")"
}
tag() { planted "$(printf 'object %s\ntype %s\ntag %s\ntagger a <a@b> %s +0000\n\n%s\n' \
    "$1" "$(git cat-file -t "$1")" "$2" "${3:-1714867200}" "$secret tag $RANDOM" | git mktag)"; }
packed() { git pack-objects -q "${1:-.git/objects/pack/pack}"; }  # of the names on stdin
