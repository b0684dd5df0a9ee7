#!/bin/sh
# Makes a Debian root into what Vagrant expects of a box, and quick to boot where every instruction is emulated.
# Run by mmdebstrap with the root's directory: customize.sh ROOT
set -eu
root=$1

# Vagrant's user, its well-known key (the machines are reachable from nowhere) and sudo.
chroot "$root" useradd --create-home --shell /bin/bash --user-group vagrant
install -d -m 700 "$root/home/vagrant/.ssh"
install -m 600 "$WEIR_VM_PUBLIC_KEY" "$root/home/vagrant/.ssh/authorized_keys"
chroot "$root" chown -R vagrant:vagrant /home/vagrant/.ssh
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/vagrant"
chmod 440 "$root/etc/sudoers.d/vagrant"

echo weir >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 weir\n' >"$root/etc/hosts"
echo '/dev/vda / ext4 defaults,noatime 0 1' >"$root/etc/fstab"
# There is no name server, and nobody should wait for one.
rm -f "$root/etc/resolv.conf"
: >"$root/etc/resolv.conf"
# Each machine gets an id of its own at its first boot. Empty, not missing: that would make it a first boot
# with all its questions and presets.
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"

# The first card is Vagrant's, by DHCP; Vagrant configures the others. networkd is quicker than ifupdown.
cat >"$root/etc/systemd/network/10-eth0.network" <<'N'
[Match]
Name=eth0
[Network]
DHCP=ipv4
LinkLocalAddressing=no
[DHCPv4]
UseDNS=no
UseHostname=no
N
rm -f "$root/etc/network/interfaces"
chroot "$root" systemctl enable systemd-networkd >/dev/null 2>&1

# One host key of the quick kind, the same in every machine of this box. Nobody looks names up.
rm -f "$root"/etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -C weir-box -f "$root/etc/ssh/ssh_host_ed25519_key"
cat >"$root/etc/ssh/sshd_config.d/weir-vm.conf" <<'S'
UseDNS no
HostKey /etc/ssh/ssh_host_ed25519_key
S

# The journal survives a power cut, but for its last seconds.
install -d -m 755 "$root/var/log/journal" "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=persistent\nSystemMaxUse=64M\nSyncIntervalSec=2s\n' \
    >"$root/etc/systemd/journald.conf.d/weir-vm.conf"

# What a test machine has no use for; emulated, each unit costs a noticeable part of a second.
for unit in \
    apt-daily.timer apt-daily-upgrade.timer dev-hugepages.mount dev-mqueue.mount dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    systemd-tmpfiles-clean.timer e2scrub_reap.service getty@tty1.service serial-getty@ttyS0.service \
    ifupdown-pre.service modprobe@configfs.service modprobe@dm_mod.service modprobe@drm.service \
    modprobe@efi_pstore.service modprobe@fuse.service modprobe@loop.service networking.service \
    proc-sys-fs-binfmt_misc.automount sys-fs-fuse-connections.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount systemd-binfmt.service systemd-firstboot.service \
    systemd-networkd-wait-online.service systemd-pstore.service systemd-random-seed.service \
    systemd-timesyncd.service systemd-update-utmp.service systemd-update-utmp-runlevel.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
