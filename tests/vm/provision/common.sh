#!/bin/sh
# The beginning of every machine's provisioning. The first argument is its name; the machine's own script follows.
# Files come from /weir/packages and /weir/keys. Running it again does no harm.
set -eu
name=$1
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

fail() {
    echo "provisioning $name: $*" >&2
    exit 1
}

# The file of a package. Of two versions nobody could say which is meant.
package() {
    wanted=$1
    set -- "/weir/packages/$wanted"_*.deb
    [ -e "$1" ] || fail "there is no package $wanted; build it with \`cargo xtask package\`"
    [ $# -eq 1 ] || fail "there are several versions of $wanted; leave one in the folder: $*"
    echo "$1"
}

# Installs packages, with what they depend on where there is a mirror to get it from.
install_packages() {
    if dpkg --force-confold --install "$@"; then
        return
    fi
    apt-get update --quiet=2 || fail "a dependency of $* is missing and there is no mirror"
    apt-get install --yes --quiet=2 --fix-broken --no-install-recommends
}

echo "$name" >/etc/hostname
hostname "$name"
cat >/etc/hosts <<H
127.0.0.1 localhost
127.0.1.1 $name
10.57.1.10 store
10.57.1.2 connector
10.57.2.20 target
H
sed -i "/ $name\$/{/^127/!d}" /etc/hosts
