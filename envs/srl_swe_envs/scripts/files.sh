# Functions of the shell that reads and writes files for us. They return an errno. fd 62 is
# /dev/null, as the keeper found it: a command may have put something else in its place.
fetch() { # fetch PATH MAX_BYTES: prints the file
    [[ -d $1 ]] && return 21
    [[ -e $1 ]] || return 2
    [[ -f $1 ]] || return 22
    [[ -r $1 ]] || return 13
    head -c "$2" -- "$1" 2>&62 || return 5
}

store() { # store PATH SUFFIX LENGTH: the next LENGTH bytes of stdin are the file in base64
    local target=$1 folder temporary failed=0
    [[ $target == /* ]] || target=/$target
    [[ -L $target ]] && target=$(readlink -m -- "$target")
    folder=${target%/*}/
    [[ -d $folder ]] || mkdir -p -- "$folder"
    # From in there on: whoever moves the folder or puts a link in its place leads us nowhere.
    if cd -P -- "$folder"; then
        target=./${target##*/}
        temporary=./.srl-swe$2
        [[ -w . ]] || failed=13
    else
        failed=20
    fi
    # All of it is taken whatever happens, as the shell would read the rest as commands.
    if ((failed)); then
        head -c "$3" | wc -c >&62
    else
        head -c "$3" | { base64 -d >"$temporary" || ! wc -c >&62; } || failed=28
    fi
    [[ -e $target && ! -f $target ]] && failed=22 # a device or a pipe
    [[ -d $target ]] && failed=21
    if ((!failed)); then
        # Without its time: by that a changed file is known to `make` and to Python.
        [[ -e $target ]] && cp --attributes-only --preserve=mode,ownership -- "$target" "$temporary"
        mv -fT -- "$temporary" "$target" || failed=5
    fi
    ((failed)) && [[ -n $temporary ]] && rm -f -- "$temporary"
    return "$failed"
} 2>&62
