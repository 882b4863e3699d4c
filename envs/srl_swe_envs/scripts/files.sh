# Functions of the shell that reads and writes files for us. They return an errno.
fetch() { # fetch PATH MAX_BYTES: prints the file
    [[ -d $1 ]] && return 21
    [[ -e $1 ]] || return 2
    [[ -f $1 ]] || return 22
    [[ -r $1 ]] || return 13
    head -c "$2" -- "$1" 2>/dev/null || return 5
}

store() { # store PATH SUFFIX LENGTH: the next LENGTH bytes of stdin are the file in base64
    local target temporary
    target=$(readlink -m -- "$1") && temporary=$target$2
    {
        mkdir -p -- "${target%/*}"
        head -c "$3" | base64 -d >"$temporary"
    } 2>/dev/null
    local failed=$?
    if [[ -d $target ]]; then
        failed=21
    elif ((failed)); then
        [[ -d ${target%/*}/ ]] && failed=28 || failed=20
    else
        [[ -e $target ]] && chown --reference="$target" -- "$temporary"
        [[ -e $target ]] && chmod --reference="$target" -- "$temporary"
        mv -fT -- "$temporary" "$target"
        return
    fi
    rm -f -- "$temporary"
    return "$failed"
} 2>/dev/null
