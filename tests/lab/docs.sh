# shellcheck shell=bash
# The lab's own shell beside the documents: what their '<!-- lab: -->' comments may say. Sourced by tests/lab/docs.
unset BASH_ENV

# shellcheck source=tests/lab/lib.sh
source "$lab_directory/lib.sh"
# shellcheck source=tests/lab/systemd.sh
source "$lab_directory/systemd.sh"
# What fails is told by the runner, which goes on.
set +e +u
trap - ERR EXIT

# The names that the documents use.
docs_target=iqn.2026-11.com.example:t
docs_host=iqn.2026-11.com.example

# A node as it is before each document: the service is installed and runs, and there is nothing else.
docs_clean() {
    iscsiadm --mode session --logout >/dev/null 2>&1
    iscsiadm --mode node --op delete >/dev/null 2>&1
    [[ ! -e /run/multipathd.pid ]] || { kill "$(</run/multipathd.pid)"; wait_until 10 test ! -e /run/multipathd.pid; }
    [[ -z $(clear_targets) ]] || { echo "targets are left:"; find_configured; return 1; }
    [[ -e /usr/share/tcmu-pr/installed ]] || inside "$PWD/scripts/install" || return 1
    inside systemctl stop tcmu-pr
    rm --recursive --force /run/tcmu-pr/* /var/lib/tcmu-pr/* /srv/* /etc/tcmu-pr.toml /etc/rtslib-fb-target/saveconfig.json \
        /etc/multipath.conf
    inside systemctl daemon-reload
    inside systemctl start tcmu-pr
}

# Makes a disk that the hosts a and b share, and a target with it as LUN 0, as the kernel allows: one backstore NAME
# for both, or NAME-a and NAME-b. docs_disk NAME SIZE [OPTIONS]
docs_disk() {
    local name=$1 size=$2 options=${3:-} host
    local tpg=/iscsi/$docs_target/tpg1
    if has_tap; then
        targetcli_batch <<END || return 1
/backstores/user:pr create name=$name size=$size cfgstring=/srv/$name.img$options
/iscsi create $docs_target
$tpg/luns create /backstores/user:pr/$name
$tpg/acls create $docs_host:a
$tpg/acls create $docs_host:b
END
        return
    fi
    docs_declared "$@"
}

# The same with a backstore for each host, whatever the kernel allows.
docs_declared() {
    local name=$1 size=$2 options=${3:-} host
    local tpg=/iscsi/$docs_target/tpg1
    targetcli_batch <<<"/iscsi create $docs_target" || return 1
    for host in a b; do
        targetcli_batch <<END || return 1
/backstores/user:pr create name=$name-$host size=$size cfgstring=/srv/$name.img;nexus=node-$host$options
$tpg/luns create /backstores/user:pr/$name-$host add_mapped_luns=false
$tpg/acls create $docs_host:$host add_mapped_luns=false
$tpg/acls/$docs_host:$host create 0 /backstores/user:pr/$name-$host
END
    done
}

# "<!-- lab: needs the nexus tap -->": such a document is run only where there is one.
needs() {
    has_tap
}
