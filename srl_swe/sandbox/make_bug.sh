# Applies the diff in the file $2 to the repository at $1, makes the outcome a commit without a parent,
# tags it $3, and moves HEAD there: the history before it holds the sound code, which is the solution,
# and has to be taken away next, by git_history.sh.
set -e
unset ${!GIT_@} XDG_CONFIG_HOME
HOME=$(mktemp -d)
export HOME GIT_CONFIG_NOSYSTEM=1 GIT_NO_REPLACE_OBJECTS=1
export GIT_AUTHOR_NAME=srl-swe GIT_AUTHOR_EMAIL=srl-swe@localhost GIT_AUTHOR_DATE='@0 +0000'
export GIT_COMMITTER_NAME=srl-swe GIT_COMMITTER_EMAIL=srl-swe@localhost GIT_COMMITTER_DATE='@0 +0000'
printf '[safe]\n\tdirectory = *\n' >"$HOME/.gitconfig"

git() { command git -c core.hooksPath=/dev/null -c core.fsmonitor= "$@"; }

cd -- "$1"
git read-tree --reset HEAD
git apply --whitespace=nowarn -- "$2"
git apply --whitespace=nowarn --cached -- "$2"
commit=$(git commit-tree -m "The state of the task" "$(git write-tree)")
git update-ref HEAD "$commit"
git tag --force -- "$3" "$commit"
rm -r -- "$2" "$HOME"
