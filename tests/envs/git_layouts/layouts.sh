# Layouts of git history. Each runs in the repository `r`, with helpers.sh; `commit` and the like
# plant the future. It may write `../base` (where the task begins, else HEAD of the seed), `../past`
# (what must stay), `../workdir`, `../check` (prints what is wrong afterwards), and touch `../moved`
# (the working tree changes), `../untagged` (no past but what is in ../past) and `../unusual`
# (commands that a user would run are left out). `-> reason` means that it is refused.

## branch
git branch later "$(commit)"
## packed branch
git branch later "$(commit)"; git pack-refs --all
## remote branch
git update-ref refs/remotes/origin/x "$(commit)"; git remote add origin https://a.invalid
echo 'git remote' >../check
## remote branch of the past
git update-ref refs/remotes/origin/x "$base^"; git update-ref refs/remotes/origin/y "$(commit)"
echo 'git rev-parse --quiet --verify refs/remotes/origin/x >/dev/null || echo lost' >../check
## tag
git tag v9 "$(commit)"
## annotated tag
c=$(commit); git update-ref refs/tags/v9 "$(tag "$c" v9)"
## tag of a tag
c=$(commit); t=$(tag "$c" v9); git update-ref refs/tags/v10 "$(tag "$t" v10)"
## tag of a tree
git tag a-tree "$(tree)"
## tag of a blob
git update-ref refs/tags/key "$(tag "$(blob)" key)"
## later tag of the past
git update-ref refs/tags/v9 "$(tag "$base" v9)"
## later tag of an old tag
git update-ref refs/tags/v9 "$(tag "$(git rev-parse v1)" v9)"
## old tag of a later tag
git update-ref refs/tags/v9 "$(tag "$(tag "$base" v9)" v9 1577836800)"
## tag without a tagger
printf 'object %s\ntype commit\ntag v9\n\n%s\n' "$base" "$secret" >../t
t=$(planted "$(git hash-object -t tag -w --literally ../t)"); git update-ref refs/tags/v9 "$t"
## stash
git update-ref --create-reflog refs/stash "$(commit)"
## stashed edits
cp file ../f; echo $secret >>file; git stash -q
planted "$(git rev-parse stash@{0})"; planted "$(git rev-parse stash@{0}:file)"; cp ../f file
## notes
git notes add -m "$secret" "$base"; planted "$(git rev-parse refs/notes/commits)"
## replaced commit
git replace "$base" "$(commit "$base^")"
## replaced blob
b=$(blob); git replace -f "$(git rev-parse HEAD:file)" "$b"
## grafts
echo "$base $(commit)" >.git/info/grafts
## original references
git update-ref refs/original/refs/heads/main "$(commit)"
## pull requests
for n in 1 2 3; do git update-ref refs/pull/$n/head "$(commit)"; done
## bisect
git bisect start -q; git update-ref refs/bisect/bad "$(commit)"; echo "$secret" >.git/BISECT_LOG
## prefetched references
git update-ref refs/prefetch/remotes/origin/main "$(commit)"
## reference outside of refs
commit >.git/SOMETHING_HEAD
## reference without its commit
git branch gone "$(commit)"; sha=$(git rev-parse gone); rm -f .git/objects/"${sha:0:2}/${sha:2}"
## reference of rubbish
commit >.git/refs/heads/locked.lock; echo rubbish >.git/refs/heads/rubbish; : >.git/refs/tags/empty
## stale packed reference
c=$(commit); git update-ref refs/heads/main "$c"; git pack-refs --all
git update-ref refs/heads/main "$base"; grep -q "$c" .git/packed-refs
## HEAD in the future
git checkout -q -f "$(commit "$(commit)")"; rm made.o untracked; touch ../moved
## HEAD in the future, with edits
git stash -q; git checkout -q "$(commit "$(commit)")"; git stash pop -q; touch ../moved; git reset -q
echo 'tail -1 file | grep -qx edited || echo lost; ls fixed 2>/dev/null' >../check
## HEAD in the future, with an edit in the way -> can't be moved there
git checkout -q -f "$(commit "$(commit)")"; echo edited >>fixed
## HEAD in the past
git branch later "$(commit)"; git checkout -q -f "$base^"; touch ../moved
## merge with the future as the image's commit
git checkout -q file; git merge -q --no-ff -m merged "$(commit)"; planted "$(git rev-parse HEAD)"
touch ../moved

## plain clone
git branch later "$(commit)"; cd ..; mv r seed.git; git clone -q seed.git r; rm -rf seed.git; cd r
git symbolic-ref refs/remotes/origin/HEAD; echo edited >>file
echo "git rev-parse -q --verify refs/remotes/origin/old >/dev/null || echo lost" >../check
git branch -q old origin/old
## plain clone at the base commit
git branch -m main trunk; git update-ref refs/heads/trunk "$(commit)"; cd ..; mv r seed.git
git clone -q seed.git r; rm -rf seed.git; cd r; git branch -q old origin/old
git reset -q --hard "$base"
## symbolic HEAD of a remote
git update-ref refs/remotes/origin/main "$(commit)"
git symbolic-ref refs/remotes/origin/HEAD refs/remotes/origin/main
## dangling symbolic references
commit >/dev/null; git symbolic-ref refs/remotes/origin/HEAD refs/remotes/origin/gone
git symbolic-ref refs/heads/none refs/heads/nothing
## symbolic tag
git branch later "$(commit)"; git symbolic-ref refs/tags/latest refs/heads/later
## symbolic branch of the past
commit >/dev/null; git symbolic-ref refs/heads/master refs/heads/main
echo "git symbolic-ref refs/heads/master | grep -qx refs/heads/main || echo lost" >../check
## chain of symbolic references
commit >/dev/null; git symbolic-ref refs/heads/a refs/heads/main
git symbolic-ref refs/heads/b refs/heads/a; git symbolic-ref HEAD refs/heads/b
## loop of symbolic references
commit >/dev/null; echo "ref: refs/heads/b" >.git/refs/heads/a
echo "ref: refs/heads/a" >.git/refs/heads/b
## HEAD as a tag
touch ../untagged; commit >/dev/null; git tag here; echo "ref: refs/tags/here" >.git/HEAD
## HEAD as a link
commit >/dev/null; rm .git/HEAD; ln -s refs/heads/main .git/HEAD
echo "cat .git/HEAD | grep -qx 'ref: refs/heads/main' || echo lost" >../check
## detached HEAD
git branch later "$(commit)"; git checkout -q --detach
## HEAD without a commit
commit >/dev/null; git symbolic-ref HEAD refs/heads/unborn
echo "git symbolic-ref HEAD | grep -qx refs/heads/unborn || echo lost" >../check
## HEAD of a missing commit
commit >/dev/null; echo 0123456789012345678901234567890123456789 >.git/HEAD

## reflogs
c=$(commit); git update-ref -m "$secret" refs/heads/main "$c"; git update-ref refs/heads/main "$base"
git update-ref --create-reflog refs/heads/old "$c"; git update-ref refs/heads/old "$base^^"
## reset
c=$(commit); git reset -q "$c"; git reset -q "$base"
## fetch
c=$(commit); printf '%s\t\tbranch %s of ..\n' "$c" $secret >.git/FETCH_HEAD; echo "$c" >.git/ORIG_HEAD
## messages
for name in COMMIT_EDITMSG MERGE_MSG SQUASH_MSG TAG_EDITMSG description; do
    echo $secret >.git/$name
done
## merge under way
c=$(commit); git checkout -q file; git merge -q --no-commit --no-ff "$c" >/dev/null; rm fixed
## conflict
echo $secret >file; git checkout -q --detach; git commit -qam "$secret"
planted "$(git rev-parse HEAD)"; planted "$(git rev-parse HEAD:file)"; git checkout -q main
echo mine >file; at 4 git commit -qam own; git merge 'HEAD@{2}' >/dev/null || true
echo own >file; test -f .git/MERGE_HEAD
## resolved conflict
echo $secret >file; git checkout -q --detach; git commit -qam "$secret"
planted "$(git rev-parse HEAD)"; planted "$(git rev-parse HEAD:file)"; git checkout -q main
echo mine >file; at 4 git commit -qam own; git merge 'HEAD@{2}' >/dev/null || true
git checkout -q --ours file; git add file; rm .git/MERGE_HEAD; grep -qa REUC .git/index
echo "grep -a REUC .git/index" >../check
## rebase under way
echo $secret >file; git checkout -q --detach; git commit -qam "$secret"
c=$(planted "$(git rev-parse HEAD)"); planted "$(git rev-parse HEAD:file)"
git checkout -q --detach "$base"; echo x >file; git commit -qam x; planted "$(git rev-parse HEAD)"
git rebase -q "$c" >/dev/null 2>&1 || true; test -d .git/rebase-merge
git reset -q --hard; git rev-parse HEAD | grep -qx "$c"; git read-tree -m -u "$c" "$base"
git update-ref --no-deref HEAD "$base"
## am under way
git format-patch -q --stdout "$base^..$base" | sed "s/day 3/$secret/" >../mail; git stash -q
planted "$(git rev-parse stash)"; git am -q ../mail >/dev/null 2>&1 || true; test -d .git/rebase-apply; git checkout -q -- .
## cherry-pick under way
mkdir .git/sequencer; echo "pick $(commit) $secret" >.git/sequencer/todo; commit >.git/CHERRY_PICK_HEAD
commit >.git/REVERT_HEAD
## recorded resolutions
mkdir -p .git/rr-cache/0123; echo $secret >.git/rr-cache/0123/postimage; commit >.git/AUTO_MERGE
## large file storage
mkdir -p .git/lfs/objects/ab/cd; echo $secret >.git/lfs/objects/ab/cd/abcd
## bundles
git branch later "$(commit)"; git bundle create -q .git/later.bundle later
for to in hooks/x info/x objects/x objects/info/x refs/heads/x.bundle; do
    cp .git/later.bundle .git/$to
done
## a repository in the repository
git branch later "$(commit)"; cp -a .git ../copy; mv ../copy .git/copy; cp -a .git/copy .git/hooks/
## settings
commit >/dev/null; git config branch.main.description "$secret"; git config later.fix "$secret"
git config remote.origin.url "https://a.invalid/$secret"; git config 'url.x.insteadOf' "$secret"
git config user.name 'A "B" C'; git config filter.x.clean 'cat \ #'; printf '\n# %s\n' $secret >>.git/config
git config 'filter.a.B "c]".smudge' $'x\ty'; printf '[alias]\n\tst\n\tl = log\n' >>.git/config
cat >../check <<'C'
git config user.name | grep -qx 'A "B" C' || echo name
git config filter.x.clean | grep -qFx 'cat \ #' || echo filter
git config 'filter.a.B "c]".smudge' | grep -qFx $'x\ty' || echo section
git config alias.l | grep -qx log || echo alias
C
## included settings
commit >/dev/null; printf '[user]\nname = %s\n' $secret >.git/more; git config include.path more
## settings of worktrees
git config extensions.worktreeConfig true; git config --worktree later.fix $secret
git config --worktree core.fsmonitor /nowhere; git config --worktree user.name me
echo "git config user.name | grep -qx me || echo lost" >../check

## dangling commit
commit
## dangling blob
blob
## dangling tree
tree
## dangling tag
tag "$base" v9
## packed dangling blob
blob | packed; git prune-packed
## packed dangling tree
tree | packed; git prune-packed
## loose and packed
git branch later "$(commit)"; git repack -aq
## past loose, future packed
packed <.git/packed-refs >/dev/null || true; commit >/dev/null; packed <../future; git prune-packed
mv .git/objects/pack ../pack; mkdir .git/objects/pack; for p in ../pack/*.pack; do git unpack-objects -q <"$p"; done
packed <../future; git prune-packed
## kept pack
commit >/dev/null; packed <../future >../pack; git prune-packed
touch .git/objects/pack/pack-$(<../pack).keep
## promisor pack
commit >/dev/null; packed <../future >../pack; git prune-packed
touch .git/objects/pack/pack-$(<../pack).promisor
## promisor pack, kept, with settings
commit >/dev/null; packed <../future >../pack; git prune-packed
touch .git/objects/pack/pack-$(<../pack).{promisor,keep}
git config remote.origin.promisor true; git config remote.origin.url "ext::touch $here/fired"
git config core.repositoryformatversion 1; git config extensions.partialClone origin
echo "ls ../fired 2>/dev/null; git config extensions.partialclone" >../check
## cruft pack
commit; git repack -q --cruft -d; ls .git/objects/pack/*.mtimes
## multi-pack index
git branch later "$(commit)"; git repack -q; git multi-pack-index write --bitmap 2>/dev/null
## bitmap and reverse index
git branch later "$(commit)"; git -c pack.writeReverseIndex=true repack -adbq
ls .git/objects/pack/*.{bitmap,rev}
## commit graph
git branch later "$(commit)"; git commit-graph write --no-progress --reachable --changed-paths
## commit graph without its commits
git branch later "$(commit)"; git commit-graph write --no-progress --reachable; git branch -qD later
git -c core.commitGraph=false -c gc.writeCommitGraph=false gc -q --prune=now
grep -q . .git/objects/info/commit-graph
## commit graph chain
git branch later "$(commit)"; git commit-graph write --no-progress --reachable --split
## info for dumb servers
git branch later "$(commit)"; git repack -adq; git update-server-info
## leftovers of killed commands
git branch later "$(commit)"; git repack -q; b=$(blob); loose=.git/objects/${b:0:2}/${b:2}
for p in .git/objects/pack/pack-*.pack; do
    cp "$p" .git/objects/pack/tmp_pack_1; cp "$p" .git/objects/pack/.tmp-1.pack
    cp "$p" .git/objects/pack/pack-ffff.pack; cp "$p" .git/objects/pack/old-1.pack
done
for to in "$loose.new" .git/objects/"${b:0:2}"/tmp_obj_1 .git/objects/incoming-1; do cp "$loose" "$to"; done
touch .git/index.lock .git/HEAD.lock .git/packed-refs.lock .git/config.lock .git/shallow.lock
## pack by another name
commit >/dev/null; packed .git/objects/pack/vendored <../future; git prune-packed
## gc settings
git branch later "$(commit)"; git branch -qD later
for s in pruneExpire=never reflogExpire=never cruftPacks=true auto=0 bigPackThreshold=1; do
    git config "gc.${s%=*}" "${s#*=}"
done
git config pack.packSizeLimit 1; git config repack.writeBitmaps true; git config pack.island 'x'
## precious objects
git branch later "$(commit)"; git config core.repositoryformatversion 1
git config extensions.preciousObjects true
## alternates
git branch later "$(commit)"; cd ..; mv r/.git/objects store; mkdir -p r/.git/objects/info
echo "$PWD/store" >r/.git/objects/info/alternates; git -C r cat-file -e later
## chained relative alternates
commit >/dev/null; mkdir -p ../one/info ../two/pack ../three/pack; packed ../two/pack/pack <../future
git prune-packed; mv .git/objects/pack/* ../three/pack/; for s in $(<../future); do rm -f ".git/objects/${s:0:2}/${s:2}"; done
printf '../two\n../three\n' >../one/info/alternates; echo ../../../one >.git/objects/info/alternates
git cat-file -e "$(head -1 ../future)"
## http alternates
commit >/dev/null; echo https://a.invalid/$secret >.git/objects/info/http-alternates
## objects elsewhere by a link
git branch later "$(commit)"; mv .git/objects ../store; ln -s ../../store .git/objects
## another hash
rm -rf .git; git init -q --object-format=sha256; git add -A; at 1 git commit -qm first
base=$(git rev-parse HEAD); echo "$base" | tee ../base >../past; git branch later "$(commit)"
touch ../untagged
## many
for n in $(seq 12); do git branch later$n "$(commit)"; git tag later$n "$(commit)"; done; git gc -q
## empty tree
c=$(git commit-tree -m "$secret" -p "$base" "$(git mktree </dev/null)"); planted "$c"
git update-ref refs/heads/empty "$c"; git repack -adq
## empty tree of the past that is not stored
git checkout -q --orphan x; git rm -rqf --cached .; at 1 git commit -q --allow-empty -m first
git add -A; at 2 git commit -qm second; git rev-parse HEAD HEAD^ >../past; git rev-parse HEAD >../base
git branch -D main old; git tag | xargs git tag -d; git reflog expire --expire=all --all; git gc -q --prune=now
git rev-list --objects HEAD | cut -d' ' -f1 | grep -v 4b825dc | packed ../x >/dev/null; rm .git/objects/pack/*
mv ../x-*.idx .git/objects/pack/pack-1.idx; mv ../x-*.pack .git/objects/pack/pack-1.pack
blob; touch ../untagged

## staged blob
cp file ../f; echo $secret >file; git add file; planted "$(git rev-parse :file)"; cp ../f file
## staged new file
echo $secret >new; git add new; planted "$(git rev-parse :new)"; rm new
## split index
echo $secret >new; git add new; planted "$(git rev-parse :new)"; git update-index --split-index
git rm -q --cached new; rm new; ls .git/sharedindex.*
## unmerged index
b=$(blob); printf '0 %s\tfile\n100644 %s 1\tfile\n100644 %s 2\tfile\n' "${b//?/0}" "$b" "$b" |
    git update-index --index-info
## flags in the index
commit >/dev/null; rm dir/other1; git update-index --skip-worktree dir/other1
git update-index --assume-unchanged file; touch ../unusual
cat >../check <<'C'
git ls-files -v | grep -q '^S dir/other1' || echo skip-worktree
git ls-files -v | grep -q '^h file' || echo assume-unchanged
C
## untracked cache
commit >/dev/null; git update-index --untracked-cache; git config core.untrackedCache true
git status -s >/dev/null
## other index files
echo $secret >new; GIT_INDEX_FILE=.git/index.other git add new; planted "$(git hash-object new)"; rm new
## sparse checkout
git branch later "$(commit)"; git checkout -q file; git sparse-checkout init --cone --sparse-index
echo "git sparse-checkout list >/dev/null 2>&1 || echo off" >../check
## intent to add
commit >/dev/null; git add -N untracked
## no index
commit >/dev/null; rm .git/index

## linked worktree
git worktree add -q ../wt "$(commit)"
echo "ls -d ../wt 2>/dev/null; git worktree list | grep wt" >../check
## linked worktree inside
git worktree add -q wt -b later "$(commit)"; touch ../moved
echo "ls wt 2>/dev/null" >../check
## linked worktree of the past, with an index
git worktree add -q --detach ../wt "$base"; cd ../wt; echo $secret >new; git add new
planted "$(git rev-parse :new)"; git update-ref --create-reflog refs/worktree/x "$(commit)"
git bisect start >/dev/null; echo "ls ../wt/file >/dev/null" >../check
## stale worktree
git worktree add -q ../wt "$(commit)"; rm -rf ../wt
## locked worktree
git worktree add -q --lock ../wt "$(commit)"; echo $secret >.git/worktrees/wt/locked
## task in a linked worktree
cd ..; mv r main; git -C main worktree add -q ../r -b task "$base"; cd main
git checkout -q -f "$(commit)"; cd ../r; echo edited >>file
## task in a linked worktree beside others
cd ..; mv r main; git -C main worktree add -q ../r -b task "$base"; cd main
git worktree add -q ../wt "$(commit)"; echo $secret >.git/worktrees/r/MERGE_MSG
git -C ../r update-ref refs/bisect/bad "$(commit)"
## worktree of a bare repository
git branch later "$(commit)"; cd ..; git clone -q --bare r repo.git; rm -rf r
git -C repo.git worktree add -q ../r -b task "$base"
## linked worktree without its repository
cd ..; mv r main; git -C main worktree add -q ../r "$base"; cd main; commit >/dev/null; rm -rf ../main
touch ../untagged ../unusual; : >../past
## git folder elsewhere
git branch later "$(commit)"; mv .git ../elsewhere.git; echo "gitdir: ../elsewhere.git" >.git
## git folder by a link
git branch later "$(commit)"; mv .git ../elsewhere.git; ln -s ../elsewhere.git .git
## new-workdir
git branch later "$(commit)"; mv .git ../main.git; mkdir .git
for n in config refs objects info hooks packed-refs logs; do ln -s ../../main.git/$n .git/$n; done
cp ../main.git/HEAD ../main.git/index .git/; git status -s >/dev/null; rm -rf ../kept
mv ../main.git ../main
for n in config refs objects info hooks packed-refs logs; do ln -sfn ../../main/$n .git/$n; done
## bare repository
git branch later "$(commit)"; cd ..; git clone -q --bare r repo.git; rm -rf r
echo repo.git >workdir; touch unusual
## folder inside
git branch later "$(commit)"; echo r/dir >../workdir; touch ../unusual
## working tree elsewhere
git branch later "$(commit)"; mkdir ../other; git config core.worktree "$PWD/../other"
## hooks
git branch later "$(commit)"; git add untracked; planted "$(git rev-parse :untracked)"
for h in post-checkout reference-transaction pre-auto-gc post-index-change; do
    printf '#!/bin/sh\ntouch %s/fired\n' "$here" >.git/hooks/$h; chmod +x .git/hooks/$h
done
git config core.fsmonitor .git/hooks/post-checkout
echo "ls ../fired 2>/dev/null; ls .git/hooks/post-checkout >/dev/null; rm .git/hooks/*" >../check
touch ../unusual
## hooks elsewhere
git branch later "$(commit)"; git add untracked; planted "$(git rev-parse :untracked)"; mkdir ../hooks
printf '#!/bin/sh\ntouch %s/fired\n' "$here" >../hooks/post-index-change; chmod +x ../hooks/*
git config core.hooksPath "$PWD/../hooks"; touch ../unusual
echo "ls ../fired 2>/dev/null; git config core.hooksPath" >../check
## shallow clone
git branch later "$(commit)"; cd ..; git clone -q --depth 1 "file://$PWD/r" clone; rm -rf r future
mv clone r; cd r; echo "$base" | tee ../base >../past; commit >/dev/null; touch ../untagged
echo "grep -qx $base .git/shallow || echo lost" >../check
## shallow in the future
c=$(commit); c=$(commit "$c"); echo "$c" >.git/shallow; git branch later "$c"
echo "ls .git/shallow 2>/dev/null" >../check
## partial clone
cd ..; git -C r config uploadpack.allowFilter true; git -C r config uploadpack.allowAnySHA1InWant true
git clone -q --filter=blob:none "file://$PWD/r" clone; mv r gone; mv clone r; cd r
git branch later "$(commit)"; git config extensions.partialClone || git config remote.origin.promisor
rm -rf ../gone; touch ../untagged ../unusual
echo "git gc -q; git status -s; git log --oneline | wc -l | grep -vx 3; echo x >>file; git commit -qam x" >../check
## partial clone without trees
cd ..; git -C r config uploadpack.allowFilter true; git -C r config uploadpack.allowAnySHA1InWant true
git clone -q --filter=tree:0 "file://$PWD/r" clone; mv r gone; mv clone r; cd r
git branch later "$(commit)"; rm -rf ../gone; touch ../untagged ../unusual
echo "git gc -q; git status -s; git log --oneline | wc -l | grep -vx 3; echo x >>file; git commit -qam x" >../check
## owned by somebody else
git branch later "$(commit)"; chown -R 1000:1000 .
echo "find .git ! -user 1000" >../check

## submodule
git init -q ../sub; cd ../sub; echo 1 >a; git add a; at 1 git commit -qm a; cd ../r
git submodule --quiet add ../sub sub; git add -A sub .gitmodules; at 4 git commit -qm sub
cd sub; base=$(git rev-parse HEAD); git branch later "$(commit)"; rm -rf ../../sub; cat >../../check <<'C'
git submodule status | grep -q '^ .* sub' || echo status
git -C sub status -s; git -C sub branch -a | grep later; git -C sub fsck --no-progress 2>&1
C
## submodule at a later commit
git init -q ../sub; cd ../sub; echo 1 >a; git add a; at 1 git commit -qm a; cd ../r
git submodule --quiet add ../sub sub; at 4 git commit -qm sub; cd sub; echo $secret >a
git commit -qam "$secret"; planted "$(git rev-parse HEAD)"; planted "$(git rev-parse HEAD:a)"
rm -rf ../../sub; touch ../../moved; cat >../../check <<'C'
git submodule status | grep -q '^ .* sub' || echo status
grep -vx 1 sub/a
C
## submodule without its commit
git init -q ../sub; cd ../sub; echo 1 >a; git add a; git commit -qm a; cd ../r
git submodule --quiet add ../sub sub; rm -rf ../sub
git update-index --cacheinfo "160000,$(git rev-parse HEAD),sub"; at 4 git commit -qm sub
cd sub; base=$(git rev-parse HEAD); commit >/dev/null; echo "cat sub/a | grep -vx 1" >../../check
## submodules in one another
for n in inner outer; do git init -q ../$n; (cd ../$n; echo 1 >a; git add a; at 1 git commit -qm a); done
(cd ../outer; git submodule --quiet add ../inner inner; at 1 git commit -qm inner)
git submodule --quiet add ../outer outer; git submodule --quiet update --init --recursive
at 4 git commit -qm outer; cd outer/inner; base=$(git rev-parse HEAD); git branch later "$(commit)"
rm -rf ../../../{inner,outer}
echo "git submodule status --recursive | grep -c '^ ' | grep -vx 2" >../../../check
## submodule with its own git folder
git init -q sub; cd sub; echo 1 >a; git add a; at 1 git commit -qm a; base=$(git rev-parse HEAD)
git branch later "$(commit)"; cd ..; git add sub 2>/dev/null
printf '[submodule "sub"]\n\tpath = sub\n\turl = ./x\n' >.gitmodules; git add .gitmodules
at 4 git commit -qm sub
## submodule that is no longer used
cp -a .git ../copy; mkdir -p .git/modules/a; mv ../copy .git/modules/a/b
export GIT_DIR=$PWD/.git/modules/a/b; git branch later "$(commit)"

## commit of the image
git add -A; git commit -qm SWE-bench; git branch later "$(commit)"
echo "git log --format=%s | grep -q SWE-bench || echo lost" >../check
## everything at once
git branch later "$(commit)"; git tag v9 "$(commit)"; git update-ref refs/tags/v10 "$(tag "$(commit)" v10)"
git update-ref --create-reflog refs/stash "$(commit)"; git notes add -m $secret "$(commit)"
git worktree add -q ../wt "$(commit)"; blob | packed; commit | packed >../pack; commit >.git/ORIG_HEAD
touch .git/objects/pack/pack-$(<../pack).{keep,promisor}; git update-index --split-index
echo $secret >untracked; git add untracked; planted "$(git rev-parse :untracked)"; echo untracked >untracked
cp -a .git/objects ../store; echo "$PWD/../store" >.git/objects/info/alternates
git symbolic-ref refs/remotes/origin/HEAD refs/heads/later; git config gc.pruneExpire never
echo "$secret" >.git/COMMIT_EDITMSG; git bundle create -q .git/all.bundle --all; cp .git/all.bundle .git/hooks/
git multi-pack-index write; git commit-graph write --no-progress --reachable

## nothing to take away
echo "git stash -q && git stash pop -q && git gc -q --prune=now && git status -s | wc -l | grep -vx 2" >../check
## no repository
mv .git ../; : >../past; touch ../untagged ../unusual; mv ../.git ../kept
## empty git folder
rm -rf .git; mkdir .git; : >../past; touch ../untagged ../unusual
## submodule without its superproject
rm -rf .git; echo "gitdir: ../.git/modules/r" >.git; : >../past; touch ../untagged ../unusual

## no such commit -> has no commit 0123
echo 0123456789012345678901234567890123456789 >../base
## no commit at all -> has no commit HEAD
rm -rf .git; git init -q; echo HEAD >../base
## an option in place of a commit -> not a commit
echo --all >../base
## no HEAD -> has no commit
commit >/dev/null; rm .git/HEAD
## broken settings -> settings can't be read
commit >/dev/null; echo '[core' >>.git/config
## unknown format -> has no commit
commit >/dev/null; git config core.repositoryformatversion 7
## unknown storage of references -> has no commit
commit >/dev/null; git config core.repositoryformatversion 1; git config extensions.refStorage none
## truncated pack -> has no commit
commit >/dev/null; for p in .git/objects/pack/*.pack; do head -c 100 "$p" >../p; cp -f ../p "$p"; done
## missing blob of the past -> missing or damaged
git unpack-objects -q <"$(ls .git/objects/pack/*.pack)" || true; mkdir ../pack; mv .git/objects/pack/* ../pack/
git unpack-objects -q <"$(ls ../pack/*.pack)"; s=$(git rev-parse HEAD^:file); rm -f ".git/objects/${s:0:2}/${s:2}"
## missing tree of the past -> missing or damaged
mkdir ../pack; mv .git/objects/pack/* ../pack/; git unpack-objects -q <"$(ls ../pack/*.pack)"
s=$(git rev-parse HEAD^^:dir); rm -f ".git/objects/${s:0:2}/${s:2}"
## empty commit of the past -> past can't be read|missing or damaged|can't be read
mkdir ../pack; mv .git/objects/pack/* ../pack/; git unpack-objects -q <"$(ls ../pack/*.pack)"
s=$(git rev-parse HEAD^); rm -f ".git/objects/${s:0:2}/${s:2}"; : >".git/objects/${s:0:2}/${s:2}"
## damaged blob of the past in a repository to pack -> damaged
mkdir ../pack; mv .git/objects/pack/* ../pack/; git unpack-objects -q <"$(ls ../pack/*.pack)"
s=$(git rev-parse HEAD^:file); head -c 9 ".git/objects/${s:0:2}/${s:2}" >../x; cp -f ../x ".git/objects/${s:0:2}/${s:2}"
commit >/dev/null
## damaged index -> index can't be read
commit >/dev/null; echo rubbish >.git/index
