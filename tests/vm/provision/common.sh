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

# The oldest version of a package: newer ones are there for tests of upgrades.
package() {
    oldest=
    for deb in "/weir/packages/$1"_*.deb; do
        [ -e "$deb" ] || continue
        if [ -z "$oldest" ] || dpkg --compare-versions "$(version "$deb")" lt "$(version "$oldest")"; then
            oldest=$deb
        fi
    done
    [ -n "$oldest" ] || fail "there is no package $1; build it with \`cargo xtask package\`"
    echo "$oldest"
}

# The version in a package's file name: NAME_VERSION_ARCHITECTURE.deb
version() {
    basename "$1" | cut -d _ -f 2
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
