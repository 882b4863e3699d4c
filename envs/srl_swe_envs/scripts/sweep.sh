# Ends what a command has started: sweep.sh SIGNAL SHELL KEEPER MARKER, the command's age on stdin.
# SHELL gets SIGNAL, as do all processes younger than the command; what remains is killed.
# Whether they left the session or were orphaned does not matter, only when they began and,
# where MARKER is not empty, that it stands in their environment. Builtins only: a fork bomb
# may have left no room for another process.
signal=$1 shell=$2 keeper=$3 marker=$4
exec 2>/dev/null
read -r uptime _ </proc/uptime
echo ready
read -r age # in hundredths of a second, measured after the uptime: rather too much than too little
oldest=$((10#${uptime/./} - age - 1)) # that is also the unit of /proc/*/stat

is_ours() {
    [[ -z $marker ]] && return
    local entry
    while IFS= read -r -d '' entry; do
        [[ $entry == "$marker" ]] && return
    done <"/proc/$1/environ"
    return 1
}

find_victims() {
    victims=()
    local folder pid stat fields
    for folder in /proc/[0-9]*; do
        pid=${folder#/proc/}
        [[ " 1 $$ $shell $keeper " == *" $pid "* ]] && continue
        IFS= read -r -d '' stat <"$folder/stat"
        fields=(${stat##*) }) # what follows the name: state is the 1st, the start time the 20th
        [[ ${fields[0]:-Z} != Z ]] && ((fields[19] >= oldest)) && is_ours "$pid" && victims+=("$pid")
    done
}

find_victims
kill "-$signal" "$shell" "${victims[@]}"
for _ in {1..20}; do
    read -r -t 0.01 # nothing comes: a pause without a process
    find_victims
    ((${#victims[@]})) || break
    kill -STOP "${victims[@]}"
    kill -KILL "${victims[@]}"
done
