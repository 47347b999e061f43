#!/bin/sh
# Whether this machine can run the tests of several hosts; installs what they need. Says in one line why it cannot.
cd "$(dirname "$0")" || exit 1
no() {
    echo "$1"
    exit 1
}
[ "$(id -u)" = 0 ] || no "they need root"
command -v apt-get >/dev/null || no "they need apt-get, of Debian"
unshare --net --uts --mount true 2>/dev/null || no "network namespaces are not allowed here"
timeout 240 sh install.sh >/dev/null 2>&1 || no "their packages could not be installed by apt-get"
space=jaxcnn-probe-$$
ip netns add "$space" 2>/dev/null || no "ip netns add is not allowed here"
trap 'ip netns del "$space"' EXIT
{ ip -n "$space" link add br0 type bridge && ip -n "$space" link add eth0 type veth peer name p1; } 2>/dev/null ||
    no "bridges and pairs of virtual devices cannot be made here"
