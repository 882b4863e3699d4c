# Takes the future out of the repository at $1, whose task begins at commit $2: every ref but
# the current branch, remotes, reflogs and all that is then reachable from nowhere. The issue's
# fix must not be a `git log --all` away (SWE-bench#465). The working tree stays as it is.
set -e
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
cd -- "$1"
git rev-parse --git-dir >/dev/null 2>&1 || exit 0
folder=$(git rev-parse --absolute-git-dir)

# Images of SWE-bench have one commit of their own on top of the base commit.
base=$(git rev-parse --verify --quiet "$2^{commit}" || true)
if [[ -n $base && " $(git rev-list --max-count=2 HEAD | tr '\n' ' ')" != *" $base "* ]]; then
    git checkout --quiet --detach "$base"
fi

current=$(git symbolic-ref --quiet HEAD || true)
git for-each-ref --format='%(refname)' | grep -vxF "${current:-HEAD}" | sed 's/^/delete /' \
    | git update-ref --stdin
for remote in $(git remote); do git remote remove "$remote"; done
rm -rf "$folder/logs" "$folder"/{FETCH,ORIG,MERGE,CHERRY_PICK,REVERT}_HEAD

stored=$(git cat-file --batch-all-objects --unordered --batch-check='%(objecttype)' | grep -c commit)
if [[ $stored != $(git rev-list --count HEAD) ]]; then
    git gc --quiet --prune=now
fi
