# Has localhost, ::1 and the container's own name resolve: an engine leaves them out of /etc/hosts
# if there is no network, or takes the host's file, which does not know the container. The name gets
# Debian's address for a host without a fixed one, so that 127.0.0.1 stays localhost.
# Builtins only: every sandbox waits for this.
read -r name </proc/sys/kernel/hostname
known=
while read -r line || [[ $line ]]; do
    line=${line%%#*}
    known+=" ${line//[[:blank:]]/ } "
done </etc/hosts
missing=
[[ $known == *' localhost '* ]] || missing+=$'127.0.0.1\tlocalhost\n'
[[ $known == *' ::1 '* ]] || missing+=$'::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n'
[[ $known == *" $name "* ]] || missing+=$'127.0.1.1\t'$name$'\n'
if [[ $missing ]]; then
    # The last line may lack its end, so a line that is there begins anew.
    printf '%s' "${known:+$'\n'}$missing" >>/etc/hosts || exit 1
fi
