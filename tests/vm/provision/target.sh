# The target: a plain sshd with a login for the connector, and nothing that knows of Weir.
[ -d /home/app ] || useradd --create-home --shell /bin/bash app
install -d -m 700 -o app -g app /home/app/.ssh
install -m 600 -o app -g app /weir/keys/target_login.pub /home/app/.ssh/authorized_keys

# Before Debian's own configuration, because the first value counts.
install -m 600 /weir/keys/target_host /etc/ssh/weir_host_key
cat >/etc/ssh/sshd_config.d/00-weir.conf <<'S'
HostKey /etc/ssh/weir_host_key
PasswordAuthentication no
S
sshd -t || fail "sshd refuses its configuration"
systemctl restart ssh
