# Takes the future out of the git repository that the folder $1 is in, whose task begins at commit
# $2: the issue's fix must not be a `git log --all` away (SWE-bench#465). What stays is listed here,
# all else goes, and at the end every stored object can be reached from what stays; if not, this
# fails and says why. The working tree stays as it is, docs/sandbox.md has the rules.
# Prints `whole` if nothing but the past was stored; with `whole` as $3, as for another container of
# an image for which it was printed, the walk over all objects is left out.
# Every sandbox waits for this, so it starts no process that it can do without.
set -eo pipefail
shopt -s nullglob dotglob
unset CDPATH ${!GIT_@}
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
export GIT_NO_REPLACE_OBJECTS=1 GIT_NO_LAZY_FETCH=1 GIT_TERMINAL_PROMPT=0 LC_ALL=C
users_home=$HOME users_xdg=$XDG_CONFIG_HOME whole=whole
export HOME=/dev/null XDG_CONFIG_HOME=/dev/null

# As `git -c` would, for every git from here on.
settings="'core.hooksPath=/dev/null' 'core.fsmonitor=' 'core.splitIndex=false'"
export GIT_CONFIG_PARAMETERS="$settings 'core.commitGraph=false' 'core.multiPackIndex=false'"

refuse() {
    echo "the git history of ${work:-$folder} can't be taken back to $since: $1"
    exit 1
}

# Sets folder (of git), common (the same, but for a linked worktree) and work (empty if bare), and
# goes there; fails if there is no repository. With GIT_DIR, git doesn't mind who owns it.
find_repository() {
    local above=$1
    until at_repository "$above"; do
        if [[ ! $above || $2 == here ]]; then return 1; fi
        above=${above%/*}
    done
    export GIT_DIR=$folder
    unset GIT_WORK_TREE
    if [[ $work ]]; then export GIT_WORK_TREE=$work; fi
    cd -- "${work:-$folder}"
}

at_repository() {
    local line target held
    work=$1 folder=$1/.git
    if [[ -f $folder ]]; then
        read_target "$folder"
        folder=$target
    elif [[ ! -d $folder && -f $1/HEAD && -d $1/objects && -d $1/refs ]]; then
        folder=$1 work=""
    fi
    cd -P -- "$folder" 2>/dev/null || return 1
    folder=$PWD common=$PWD
    if [[ -f commondir ]]; then
        read_target "$folder/commondir"
        cd -P -- "$target" 2>/dev/null || return 1
        common=$PWD
    fi
    held=(objects/*/*)
    [[ -e $folder/HEAD || ${#held[@]} -gt 0 ]]
}

read_line() {
    line=""
    IFS= read -r line 2>/dev/null <"$1" || true
}

# Sets target to the path in the file $1, such as a .git file; it may begin at that file's folder.
read_target() {
    read_line "$1"
    target=${line#gitdir: }
    if [[ $target != /* ]]; then target=${1%/*}/$target; fi
}

# Whether a setting stays: one that the user or the format needs, which keeps no object, names no
# other place for objects or files, and runs nothing here.
setting_stays() {
    case $1 in
    core.worktree) (cd -- "$folder" && [[ $work && $2 -ef $work ]]) ;;
    core.repositoryformatversion | core.bare | core.filemode | core.symlinks | core.ignorecase) ;;
    core.logallrefupdates | core.precomposeunicode | core.autocrlf | core.eol | core.safecrlf) ;;
    core.whitespace | core.quotepath | core.abbrev | core.trustctime | core.checkstat) ;;
    core.sparsecheckout | core.sparsecheckoutcone | core.excludesfile | core.attributesfile) ;;
    core.protecthfs | core.protectntfs | core.longpaths | core.sharedrepository | core.editor) ;;
    core.pager | core.commentchar) ;;
    extensions.objectformat | extensions.worktreeconfig | extensions.relativeworktrees) ;;
    extensions.refstorage) [[ ! $refs_are_ours ]] ;;
    user.* | author.* | committer.* | commit.* | alias.* | color.* | column.* | status.*) ;;
    diff.* | merge.* | filter.* | submodule.* | apply.* | log.* | format.* | blame.* | grep.*) ;;
    init.* | i18n.* | advice.* | push.* | pull.* | rebase.* | stash.*) ;;
    *) return 1 ;;
    esac
}

# The settings that nearly every repository has, and no others.
plain_settings=$'^(\\[(core|user)\\]|[ \t]+(repositoryformatversion = 0'
plain_settings+=$'|(bare|filemode|symlinks|ignorecase|logallrefupdates|precomposeunicode) = (true|false)'
plain_settings+=$'|(name|email) = [^][\\\\"#;\n]*)|\n)*$'

clean_settings() {
    local entry key value section="" text=""
    if [[ ! -e $1 ]]; then return; fi
    IFS= read -r -d '' text <"$1" || true
    if [[ ! -L $1 && $text =~ $plain_settings ]]; then return; fi
    text=""
    GIT_DIR=/dev/null git config --file "$1" --list -z >"$common/scratch" ||
        refuse "its settings can't be read"
    while IFS= read -r -d '' entry; do
        key=${entry%%$'\n'*} value=true
        if [[ $entry == *$'\n'* ]]; then value=${entry#*$'\n'}; fi
        case $key in
        extensions.partialclone) partial=$value ;;
        remote.*.promisor) partial=${key#remote.} partial=${partial%.promisor} ;;
        extensions.refstorage) ref_storage=$value ;;
        esac
        if ! setting_stays "$key" "$value"; then continue; fi
        if [[ $section != "${key%.*}" ]]; then
            section=${key%.*} text+="[${section%%.*}"
            if [[ $section == *.* ]]; then text+=" $(quoted "${section#*.}")"; fi
            text+=$']\n'
        fi
        text+=$'\t'"${key##*.} = $(quoted "$value")"$'\n'
    done <"$common/scratch"
    write "$1" "$text"
}

quoted() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"} text=${text//$'\n'/\\n}
    printf '"%s"' "${text//$'\t'/\\t}"
}

write() {
    if [[ -L $1 ]]; then rm -- "$1"; fi
    printf %s "$2" >"$1"
}

# Sets base, and tip, where HEAD will be: at the base commit, or if HEAD is there at the image's one
# commit on top of it (those of SWE-bench have one). Otherwise it has to leave where it is: ahead.
find_commits() {
    local read head="" parents
    if [[ $since == -* ]]; then refuse "that is not a commit"; fi
    if read=$(git rev-list --no-walk=unsorted --timestamp --parents "$since^{commit}" HEAD -- 2>/dev/null)
    then
        read -r _ head parents <<<"${read##*$'\n'}"
    else
        read=$(git rev-list --no-walk --timestamp "$since^{commit}" --) ||
            refuse "the repository has no commit $since"
    fi
    read -r base_s base _ <<<"$read"
    tip=$base ahead=""
    if [[ $own_commit == may && $head && $parents == "$base" ]]; then
        tip=$head
    elif [[ $head != "$base" ]]; then
        ahead=$head
    fi
}

# Fills refs with the branches and tags of the past by name: those of tip and of its ancestors. As a
# tag's message may tell about the future, its date has to be in the past, too. Sets head as well.
find_refs() {
    local read name sha type of date line
    tips=$tip head=$tip
    read=$(git for-each-ref --merged="$tip" --format='%(refname) %(objectname) %(objecttype)
%(type) %(taggerdate:unix)
%(HEAD)%(symref)' refs/heads refs/tags refs/remotes) || refuse "its branches and tags can't be read"
    while read -r name sha type && read -r of date && IFS= read -r line; do
        case $type/$of in
        tag/tag) is_old_tag "$sha" || continue ;;
        tag/*) [[ $date ]] && ((date <= base_s)) || continue ;;
        esac
        if [[ ${line:1} ]]; then
            symbolic[$name]=${line:1}
        else
            refs[$name]=$sha
            tips+=$'\n'$sha
        fi
        if [[ $line == '*'* && $name == refs/heads/* && ! $ahead ]]; then head="ref: $name"; fi
    done <<<"$read"
    read_line "$folder/HEAD"
    if [[ $line == 'ref: refs/heads/'* && $line != */.invalid && $head == "$tip" && ! $ahead ]] &&
        ! git rev-parse --quiet --verify HEAD >/dev/null; then
        head=$line refs[${line#ref: }]=$tip  # a branch that had no commit yet
    fi
}

tag_pattern=$'^object ([0-9a-f]+)\ntype ([a-z]+)\ntag [^\n]*\ntagger [^\n]* ([0-9]+) [-+][0-9]+\n'
is_old_tag() {
    local sha=$1 of=tag text
    while [[ $of == tag ]]; do
        text=$(git cat-file tag "$sha") || return 1
        [[ $text =~ $tag_pattern ]] && ((BASH_REMATCH[3] <= base_s)) || return 1
        sha=${BASH_REMATCH[1]} of=${BASH_REMATCH[2]}
    done
}

# Makes the index that of HEAD; flags of its entries and times of files are kept. What was staged
# beyond HEAD is then an edit of the working tree. Then leaves a HEAD that is not to stay, as a
# checkout does: edits are carried along, and if one is in the way this fails.
clean_index() {
    if [[ ! $work ]]; then return; fi
    if [[ -e $folder/index.lock ]]; then rm -- "$folder/index.lock"; fi
    git read-tree --reset "${ahead:-$tip}" || refuse "its index can't be read"
    if [[ ! $ahead ]]; then return; fi
    (
        export HOME=$users_home XDG_CONFIG_HOME=$users_xdg  # for filters, as those of LFS
        unset GIT_CONFIG_NOSYSTEM GIT_CONFIG_GLOBAL
        git update-index -q --refresh || true
        git read-tree -m -u "$ahead" "$tip"
    ) || refuse "HEAD is elsewhere, and can't be moved there"
}

# Collects in junk all that is in the folders of git but what is named here, and what other tools
# than git put there. References are written anew, so the old ones go as well.
find_junk() {
    local path
    for path in "$common"/* "$common"/worktrees/*; do
        case ${path#"$common"/} in
        HEAD | config | objects | hooks | info | shallow | modules) continue ;;
        refs) if [[ ! -L $path ]]; then continue; fi ;;
        index | config.worktree) if [[ $folder == "$common" ]]; then continue; fi ;;
        worktrees) if [[ $folder == "$path"/* ]]; then continue; fi ;;
        esac
        if [[ $path != "$folder" ]]; then junk+=("$path"); fi
    done
    for path in "$folder"/*; do
        case ${path##*/} in
        HEAD | config.worktree | index | info | modules | commondir | gitdir) continue ;;
        esac
        if [[ $folder != "$common" ]]; then junk+=("$path"); fi
    done
    junk+=("$common"/refs/{heads,tags}/*)
    for path in "$common"/refs/*; do
        if [[ $path != */heads && $path != */tags || -L $path || ! -d $path ]]; then junk+=("$path"); fi
    done
    for path in "$common"/info/* "$folder"/info/*; do
        case ${path##*/} in exclude | attributes | sparse-checkout) continue ;; esac
        junk+=("$path")
    done
    for path in "$common"/hooks/*; do
        read_line "$path"
        if [[ ! -f $path || $line != '#!'* ]]; then junk+=("$path"); fi
    done
    find_junk_objects
}

find_junk_objects() {
    local path name
    for path in "$common"/objects/*; do
        name=${path##*/}
        if [[ $name != pack && ! $name =~ ^[0-9a-f]{2}$ ]]; then
            if [[ $name != info ]]; then junk+=("$path"); fi
        fi
    done
    for path in "$common"/objects/info/*; do
        if [[ $path != */alternates ]]; then junk+=("$path"); fi  # it is cut when all is packed
    done
    for path in "$common"/objects/??/*; do
        if [[ ! ${path##*/} =~ ^([0-9a-f]{38}|[0-9a-f]{62})$ ]]; then junk+=("$path"); fi
    done
    for path in "$common"/objects/pack/*; do
        name=${path%.*}
        case ${path##*.} in
        pack | idx | rev | bitmap) if [[ -f $name.pack && -f $name.idx ]]; then continue; fi ;;
        promisor) partial=${partial:-origin} ;;
        esac
        junk+=("$path")
    done
}

# Removes the checkouts of linked worktrees that are not at a commit of the past.
drop_worktrees() {
    local other target line checkout ancestor
    for other in "$common"/worktrees/*; do
        read_target "$other/gitdir"
        checkout=$(cd -P -- "${target%/.git}" 2>/dev/null && pwd) || continue  # it is gone
        if [[ $work/ == "$checkout"/* || $common/ == "$checkout"/* || ! -f $checkout/.git ]]; then
            continue
        fi
        read_target "$checkout/.git"
        if [[ ! $target -ef $other ]]; then continue; fi
        ancestor=0
        GIT_DIR=$other git merge-base --is-ancestor HEAD "$tip" 2>/dev/null || ancestor=$?
        if ((ancestor == 1)); then rm -rf -- "$checkout"; fi
    done
}

write_refs() {
    local name packed=""
    if [[ ! -d $common/refs/heads || ! -d $common/refs/tags ]]; then
        mkdir -p -- "$common"/refs/{heads,tags}
    fi
    for name in "${!refs[@]}"; do packed+="${refs[$name]} $name"$'\n'; done
    write "$common/packed-refs" "$packed"
    for name in "${!symbolic[@]}"; do
        if [[ ! ${refs[${symbolic[$name]}]} ]]; then continue; fi
        mkdir -p -- "$common/${name%/*}"
        write "$common/$name" "ref: ${symbolic[$name]}"$'\n'
    done
    write "$common/HEAD" "$tip"$'\n'
    write "$folder/HEAD" "$head"$'\n'
    if [[ $ref_storage ]]; then
        refs_are_ours=yes
        clean_settings "$common/config"
        rm -- "$common/scratch"
    fi
}

# Lists what can be reached from HEAD and the references, and what is stored. The empty tree doesn't
# count, as git can read it even if it is stored nowhere.
empty_tree=(-e 4b825dc642cb6eb9a060e54bf8d69288fbee4904)
empty_tree+=(-e 6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321)
reached() { git rev-list --objects "${missing[@]}" --stdin <<<"$tips"; }
stored() { git cat-file --batch-all-objects --batch-check='%(objectname)'; }

# Leaves in the object store what can be reached and nothing else.
clean_objects() {
    local missing=() reached stored=other
    if [[ $known == whole && ! $partial && $alone ]]; then return; fi
    count_reached
    if [[ $alone ]]; then
        stored=$(stored | grep -vc "${empty_tree[@]}") || refuse "its objects can't be listed"
    fi
    if [[ $reached != "$stored" ]]; then pack_anew; fi
    if ((${#missing[@]})); then allow_missing; fi
}

count_reached() {
    local why=/dev/stderr
    if [[ $partial ]]; then why=/dev/null; fi
    reached=$(reached 2>"$why" | grep -vc "${empty_tree[@]}") && return
    if [[ ! $partial ]]; then refuse "objects of the past are missing or damaged"; fi
    missing=(--missing=allow-any)
    reached=$(reached | grep -vc "${empty_tree[@]}") || refuse "objects of the past are damaged"
}

# Packs what can be reached, wherever it is stored, and puts that in the place of all objects.
pack_anew() {
    local new=$common/new-objects left
    mkdir -p -- "$new"/objects/{info,pack}
    reached >"$new/list" || refuse "its objects can't be read"
    git pack-objects -q --delta-base-offset "$new/objects/pack/pack" <"$new/list" >/dev/null ||
        refuse "objects of the past are damaged"
    if [[ -L $common/objects ]]; then
        rm -- "$common/objects"
        mkdir -- "$common/objects"
    fi
    rm -rf -- "$common"/objects/*
    mv -- "$new"/objects/* "$common/objects"
    cut -d ' ' -f 1 "$new/list" | sort >"$new/reached"
    stored | sort >"$new/stored" || refuse "its objects can't be listed"
    left=$(comm -13 "$new/reached" "$new/stored") || refuse "its objects can't be compared"
    if [[ $left ]]; then refuse "objects are left that are not of the past: ${left:0:200}"; fi
    rm -rf -- "$new"
    whole=""
}

# A partial clone stays one, but with nowhere to fetch from: else git takes it for damaged.
allow_missing() {
    local pack
    for pack in "$common"/objects/pack/*.pack; do : >"${pack%.pack}.promisor"; done
    git config --file "$common/config" core.repositoryformatversion 1
    git config --file "$common/config" extensions.partialclone "$partial"
    git config --file "$common/config" "remote.$partial.promisor" true
}

clean_shallow() {
    local kept
    if [[ ! -e $common/shallow ]]; then return; fi
    kept=$(git rev-list --stdin <<<"$tips" | grep -Fxf "$common/shallow") || kept=""
    if [[ $kept ]]; then write "$common/shallow" "$kept"$'\n'; else rm -- "$common/shallow"; fi
}

# Takes each submodule back to the commit that HEAD records. The repository of a submodule that lacks
# this commit goes, as do those that belong to no folder of the working tree.
clean_submodules() {
    local entry entries=() sha path
    local -A seen=()
    if [[ ! $work || ! -e $work/.gitmodules && ! -d $common/modules && ! -d $folder/modules ]]; then
        return
    fi
    git ls-files --stage -z >"$common/scratch" || refuse "its index can't be read"
    while IFS= read -r -d '' entry; do
        if [[ $entry == '160000 '* ]]; then entries+=("$entry"); fi
    done <"$common/scratch"
    rm -- "$common/scratch"
    for entry in "${entries[@]}"; do
        read -r _ sha _ <<<"${entry%%$'\t'*}"
        path=$work/${entry#*$'\t'}
        if [[ ! -e $path/.git ]]; then continue; fi
        if has_commit "$path" "$sha"; then
            clean "$path" "$sha" never here
        else
            rm -rf -- "$path/.git"
        fi
    done
    drop_modules "$common/modules"
    drop_modules "$folder/modules"
}

has_commit() {
    local work folder common
    at_repository "$1" && GIT_DIR=$folder git cat-file -e "$2^{commit}" 2>/dev/null || return 1
    seen[$folder]=yes
}

drop_modules() {
    local path
    for path in "$1"/*; do
        if [[ ${seen[$path]} || ! -d $path ]]; then continue; fi
        if [[ -e $path/HEAD || -d $path/objects ]]; then rm -rf -- "$path"; else drop_modules "$path"; fi
    done
}

restore_owner() {
    local paths=("$common"/{HEAD,config,packed-refs,refs} "$folder"/{HEAD,index*})
    if [[ -O $common ]]; then return; fi
    if [[ ! $whole ]]; then paths+=("$common/objects"); fi
    chown -R --reference="$common" -- "${paths[@]}" 2>/dev/null || true
}

# Cleans the repository that the folder $1 is in, of which the commit $2 is the present. $3 is `may`
# if HEAD may be at one commit on top of it; with `here` as $4 it is not looked for further up.
clean() {
    local since=$2 own_commit=$3 work folder common alone=yes partial="" ref_storage="" refs_are_ours=""
    local base base_s tip ahead head tips junk=()
    local -A refs=() symbolic=()
    if ! find_repository "$1" "$4"; then return; fi
    clean_settings "$common/config"
    clean_settings "$folder/config.worktree"
    if [[ -e $common/info/grafts ]]; then rm -- "$common/info/grafts"; fi
    find_commits
    find_refs
    clean_index
    drop_worktrees
    find_junk
    if ((${#junk[@]})); then rm -rf -- "${junk[@]}"; fi
    write_refs
    if [[ -L $common/objects || -s $common/objects/info/alternates ]]; then alone=""; fi
    clean_objects
    clean_shallow
    restore_owner
    clean_submodules
}

known=$3
cd -P -- "$1"
clean "$PWD" "$2" may
echo "$whole"
