# Starts the persistent shell and says when it has ended. The first line of stdin is a secret
# that only this process knows, so that nothing the shell prints can pass for its death.
# fd 60: the output of commands; fd 61: the shell's report. Commands hold 60 only as 1 and 2.
IFS= read -r secret
exec 60>&1 61>&2 2>/dev/null
bash --norc --noprofile +H +o history -i >/dev/null
printf '%s %s\n' "$secret" "$?" >&60
