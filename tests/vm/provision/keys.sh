#!/bin/sh
# Makes the keys of the machines, where they are missing: keys.sh DIRECTORY
#
#   user              Ada's, listed in the grant
#   user_ca           an authority whose certificates the connector accepts
#   connector_host    the connector's host key
#   target_host       the target's host key, pinned by the connector
#   target_login      what the connector logs in to the target with
set -eu
mkdir -p "$1"
chmod 700 "$1"
for name in user user_ca connector_host target_host target_login; do
    [ -e "$1/$name" ] || ssh-keygen -q -t ed25519 -N '' -C "weir-vm $name" -f "$1/$name"
done
