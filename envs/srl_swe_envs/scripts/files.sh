# Functions of the shell that reads and writes files for us. They return an errno.
fetch() { # fetch PATH MAX_BYTES: prints the file
    [[ -d $1 ]] && return 21
    [[ -e $1 ]] || return 2
    [[ -f $1 ]] || return 22
    [[ -r $1 ]] || return 13
    head -c "$2" -- "$1" 2>/dev/null || return 5
}

store() { # store PATH SUFFIX LENGTH: the next LENGTH bytes of stdin are the file in base64
    local target=$1 temporary failed
    [[ $target == /* ]] || target=/$target
    [[ -L $target ]] && target=$(readlink -m -- "$target")
    temporary=$target$2
    [[ -d ${target%/*}/ ]] || mkdir -p -- "${target%/*}"
    head -c "$3" | base64 -d >"$temporary" # what is not taken is noise to the shell, no command
    failed=$?
    if [[ -d $target ]]; then
        failed=21
    elif ((failed)); then
        [[ -d ${target%/*}/ ]] && failed=28 || failed=20
    else
        [[ -e $target ]] && cp -p --attributes-only -- "$target" "$temporary"
        mv -fT -- "$temporary" "$target" && return
        failed=5
    fi
    rm -f -- "$temporary"
    return "$failed"
} 2>/dev/null
