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
    # There may be none.
    iscsiadm --mode session --logout >/dev/null 2>&1 || true
    iscsiadm --mode node --op delete >/dev/null 2>&1 || true
    if pgrep --exact multipathd >/dev/null; then
        multipathd shutdown >/dev/null
        wait_until 10 sh -c '! pgrep --exact multipathd'
        multipath -F >/dev/null 2>&1 || true
    fi
    # It takes seconds to ask targetcli, and not every document has targets.
    if [[ -n $(find_configured) && -n $(clear_targets) ]]; then
        echo "targets are left:"
        find_configured
        return 1
    fi
    [[ -e /usr/share/tcmu-pr/installed ]] || inside "$PWD/scripts/install" || return 1
    inside systemctl stop tcmu-pr
    rm --recursive --force /run/tcmu-pr/* /var/lib/tcmu-pr/* /srv/* /etc/tcmu-pr.toml /etc/rtslib-fb-target/saveconfig.json \
        /etc/multipath.conf
    inside systemctl daemon-reload
    inside systemctl start tcmu-pr
}

# Makes a disk that the hosts a and b share, through a backstore for each of them, and a target with it as LUN 0:
# docs_disk NAME SIZE [OPTIONS]
docs_disk() {
    local name=$1 size=$2 options=${3:-} host
    local tpg=/iscsi/$docs_target/tpg1
    {
        echo "/iscsi create $docs_target"
        for host in a b; do
            cat <<END
/backstores/user:pr create name=$name-$host size=$size cfgstring=/srv/$name.img;nexus=node-$host$options
$tpg/luns create /backstores/user:pr/$name-$host add_mapped_luns=false
$tpg/acls create $docs_host:$host add_mapped_luns=false
$tpg/acls/$docs_host:$host create 0 /backstores/user:pr/$name-$host
END
        done
    } | targetcli_batch
}

# "<!-- lab: needs the nexus tap -->": such a document is run only where there is one.
needs() {
    has_tap
}
