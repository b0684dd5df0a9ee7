# The connector: agent and proxy, installed and configured as an administrator would.

# The spool and everything else the agent keeps are on a disk of their own, which is small.
for disk in /dev/vdb /dev/sdb; do
    [ -b "$disk" ] || continue
    # Only an empty one: it has neither a file system nor partitions.
    [ -n "$(blkid -o value -s TYPE "$disk" || true)$(blkid -o value -s PTTYPE "$disk" || true)" ] ||
        mkfs.ext4 -q -L weir-state "$disk"
done
if [ -e /dev/disk/by-label/weir-state ] || blkid -L weir-state >/dev/null; then
    grep -q LABEL=weir-state /etc/fstab || echo 'LABEL=weir-state /var/lib/weir ext4 defaults 0 2' >>/etc/fstab
    mkdir -p /var/lib/weir
    systemctl daemon-reload
    mountpoint -q /var/lib/weir || mount /var/lib/weir
else
    echo "$name has no disk for /var/lib/weir alone: tests that fill it fill everything"
fi

agent=$(package weir-agent)
proxy=$(package weir-proxy)
install_packages "$agent" "$proxy"

cat >/etc/weir/agent.toml <<'T'
allowed_users = ["weir-proxy"]
control_group = "weir"
bpf_dir = "/run/weir/bpf"
node = "connector"
store = "s3://recordings/weir"
# Short, so that tests need not wait: what a lost node can cost.
segment_max_age_ms = 5000
metrics_listen = "127.0.0.1:9465"

[s3]
region = "us-east-1"
endpoint = "http://10.57.1.10:9000"
path_style = true
connect_timeout_ms = 3000
request_timeout_ms = 20000
T
# What the tests' S3 server knows; nothing else accepts it.
install -m 600 /dev/null /etc/weir/agent.env
cat >/etc/weir/agent.env <<'T'
AWS_ACCESS_KEY_ID=AKIATEST
AWS_SECRET_ACCESS_KEY=a-secret-that-no-log-shows
AWS_EC2_METADATA_DISABLED=true
T

install -d -m 750 -o root -g weir-proxy /etc/weir/keys /etc/weir/grants
install -m 640 -o root -g weir-proxy /weir/keys/target_login /etc/weir/keys/target
install -m 644 /weir/keys/user_ca.pub /etc/weir/user_ca.pub
install -m 600 -o weir-proxy -g weir-proxy /weir/keys/connector_host /var/lib/weir-proxy/host_key
cat >/etc/weir/proxy.toml <<T
listen = "0.0.0.0:10022"
host_key = "/var/lib/weir-proxy/host_key"
grants_dir = "/etc/weir/grants"
state_dir = "/var/lib/weir-proxy"
user_ca = "/etc/weir/user_ca.pub"
metrics_listen = "127.0.0.1:10023"
# A peer behind a cut network is given up after half a minute.
client_keepalive_ms = 6000
target_keepalive_ms = 3000

[[resources]]
name = "target"
integration = "ssh"
host = "10.57.2.20"
users = ["app"]
host_key = "$(cut -d ' ' -f 1,2 /weir/keys/target_host.pub)"
private_key = "/etc/weir/keys/target"
T
cat >/etc/weir/grants/lab.toml <<T
user = "ada@example.com"
resource = "target"
target_login = "app"
request_id = "REQ-1042"
approvers = ["grace@example.com"]
access_flow = "laboratory"
expires_at = "2099-12-31T00:00:00Z"
public_keys = ["$(cut -d ' ' -f 1,2 /weir/keys/user.pub)"]
certificate = true
permissions = ["shell", "exec", "subsystem", "local_forward"]
T
chown root:weir-proxy /etc/weir/grants/lab.toml /etc/weir/proxy.toml
chmod 640 /etc/weir/grants/lab.toml

systemctl enable weir-agent weir-proxy
systemctl restart weir-agent weir-proxy
