# The store and the user: an S3 server, and Ada, who has an ssh client.
[ -e /weir/packages/weir-s3 ] || fail "there is no weir-s3; build it and put it beside the packages"
install -m 755 /weir/packages/weir-s3 /usr/local/bin/weir-s3
cat >/etc/systemd/system/weir-s3.service <<'U'
[Unit]
Description=S3 API of the tests
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/local/bin/weir-s3 --root /var/lib/weir-s3 --listen 0.0.0.0:9000
StateDirectory=weir-s3
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
U
systemctl daemon-reload
systemctl enable weir-s3
systemctl restart weir-s3

# `weir`, to read and verify what was recorded.
weir=$(package weir)
install_packages "$weir"

# `ssh connector` as vagrant: Ada's key, the grant's id as the login, the connector's key pinned.
home=/home/vagrant
install -m 600 -o vagrant -g vagrant /weir/keys/user "$home/.ssh/ada"
install -m 644 -o vagrant -g vagrant /weir/keys/user.pub "$home/.ssh/ada.pub"
cat >"$home/.ssh/config" <<'C'
Host connector
    HostName 10.57.1.2
    Port 10022
    User lab
    IdentityFile ~/.ssh/ada
    IdentitiesOnly yes
    UserKnownHostsFile ~/.ssh/known_hosts
    StrictHostKeyChecking yes
C
echo "[10.57.1.2]:10022 $(cut -d ' ' -f 1,2 /weir/keys/connector_host.pub)" >"$home/.ssh/known_hosts"
chown vagrant:vagrant "$home/.ssh/config" "$home/.ssh/known_hosts"
