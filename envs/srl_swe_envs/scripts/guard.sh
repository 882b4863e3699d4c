# PID 1 of a sandbox's container: reaps orphans and carries out orders, one per line of stdin.
#   NONCE sweep SIGNAL SHELL KEEPER YOUNGEST ELAPSED   ends what the current command has started
#   NONCE end                                          kills every other process
#   NONCE leave                                        the same, and ends; there is no answer
# The answer on stdout is "NONCE done", or "NONCE failed" if processes keep coming. No signal from inside the container ends or stops PID 1,
# one kill(-1) stops all other processes at once, and commands run at a lower priority than this.
# Builtins only: a fork bomb may have left no room for a process.
exec 3<> <(:) 2>/dev/null

read_stat() { # read_stat PID: sets state, parent, and started in ticks of 10 ms since boot
    local stat
    IFS= read -r -d '' stat <"/proc/$1/stat"
    set -- ${stat##*) }
    state=$1 parent=$2 started=${20}
    [[ -n $started ]]
}

is_younger() { # is_younger PID: ids are given in turn and begin anew after the highest
    ((started > certainly_new)) && return
    if ((now >= youngest)); then (($1 > youngest)); else (($1 > youngest || $1 <= now)); fi
}

ignores_interrupt() { # ignores_interrupt PID
    local status
    IFS= read -r -d '' status <"/proc/$1/status"
    [[ $status =~ SigIgn:[[:space:]]*([0-9a-f]+) ]] && ((16#${BASH_REMATCH[1]} & 2))
}

find_victims() { # sets victims, and of these fresh: new children of the shell that can be interrupted
    local folder pid
    victims=() fresh=()
    read -r _ _ _ _ now </proc/loadavg
    for folder in /proc/[0-9]*; do
        pid=${folder#/proc/}
        [[ $pid == 1 || $pid == "$shell" || $pid == "$keeper" ]] && continue
        read_stat "$pid" && [[ $state != [ZX] ]] && is_younger "$pid" || continue
        if [[ $parent == "$shell" && -z ${seen[pid]} ]] && ! ignores_interrupt "$pid"; then
            fresh+=("$pid")
        else
            victims+=("$pid")
        fi
        seen[pid]=yes
    done
}

# All processes stand still while victims are looked for, so none can fork away. A child of the
# shell is interrupted before it is killed, as the shell gives up its whole command only if its
# child dies of that.
sweep() { # sweep SIGNAL SHELL KEEPER YOUNGEST ELAPSED: YOUNGEST is the last process id given out
    # before the command, ELAPSED the hundredths of a second since then
    local signal=$1 shell=$2 keeper=$3 youngest=$4 certainly_new now victims fresh
    local -a seen=()
    read_stat 1
    ((certainly_new = started + 100 * SECONDS - $5 + 250))
    kill -STOP -1
    ignores_interrupt "$shell" && signal=KILL
    for _ in {1..20}; do
        find_victims
        ((${#victims[@]})) && kill -KILL "${victims[@]}"
        ((${#fresh[@]})) && kill -INT "${fresh[@]}"
        [[ -n ${fresh[*]} || -n $signal ]] && kill "-${signal:-INT}" "$shell"
        signal=
        kill -CONT -1
        ((${#victims[@]} + ${#fresh[@]})) || return 0
        read -r -t "0.0${fresh:+5}1" -u 3 # nothing comes: a pause without a process
        kill -STOP -1
    done
    kill -CONT -1
    return 1
}

while :; do
    if ! IFS=' ' read -r nonce order arguments; then
        read -r -u 3 # no more orders
        continue
    fi
    outcome=failed
    case $order in
        sweep) [[ $arguments =~ ^[A-Z]+(\ [0-9]+){4}$ ]] && sweep $arguments && outcome=done ;;
        end) kill -KILL -1 && outcome=done ;;
        leave) kill -KILL -1; exit ;;
    esac 2>/dev/null
    echo "$nonce $outcome"
done
