# Starts the persistent shell (by the command in $@, if any) and reports its end. The first line
# of stdin is a secret that only this process knows: nothing that the shell prints can pass for it.
# fd 60: the output of commands; fd 61: the shell's report; fd 62: /dev/null, as it was at first.
# Commands hold 60 and 62 only as 0, 1 and 2.
IFS= read -r secret
exec 60>&1 61>&2
if [[ -c /dev/null ]]; then exec 62<>/dev/null; else
    exec 62<<<end # an empty here-document would be read from /dev/null
    read -r _ <&62
fi
exec 2>&62
type -P "$1" >&62 || set -- # an image without nice
"$@" bash --norc --noprofile +H +o history -i >&62
printf '%s %s\n' "$secret" "$?" >&60
