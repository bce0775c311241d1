# shellcheck shell=bash
# A systemd of the lab's own, for tests of the service: to be sourced after lib.sh.

# Where the service's own words are: it has no journal here.
service_log() {
    dmesg | grep --fixed-strings 'tcmu-pr['
}

# Starts systemd in a namespace of processes, with nothing but what it is asked for: a boot takes User Mode Linux minutes.
systemd_start() {
    if [[ $TCMU_PR_LAB == host ]]; then
        ok "left out: it would change this machine"
        closing
        exit
    fi
    mountpoint --quiet /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
    printf '[Unit]\nDefaultDependencies=no\n' | tee /etc/systemd/system/{lab,sysinit}.target >/dev/null
    # Nor may a policy of the machine's keep dpkg from starting services.
    rm --recursive --force /etc/systemd/system/sysinit.target.wants /usr/sbin/policy-rc.d
    # Mounts reach services, as on a node.
    unshare --pid --mount --propagation shared --fork --kill-child bash -c '
        mount -t proc proc /proc
        mount -t tmpfs none /usr/lib/systemd/system/sysinit.target.wants
        container=lab exec /usr/lib/systemd/systemd --system --unit=lab.target --log-target=kmsg \
            --default-standard-output=kmsg' </dev/null >/dev/null 2>&1 &
    wait_until 30 systemd_runs $! || give_up "systemd starts"
}

systemd_runs() {
    systemd_pid=$(pgrep --parent "$1") && [[ $(inside systemctl is-system-running) == running ]]
}

# Runs a command beside that systemd.
inside() {
    nsenter --target "$systemd_pid" --pid --mount "$@"
}

# Prints a property of the service: service ActiveState
service() {
    inside systemctl show --property="$1" --value tcmu-pr
}

# Whether the service runs, as another process than this.
runs_anew() {
    [[ $(service ActiveState) == active && $(service MainPID) != "$1" ]]
}

# Whether the files of a list, a path a line from the root, are there: all_there LIST
all_there() {
    local place
    while read -r place; do
        [[ -e /$place ]] || { echo "there is no /$place"; return 1; }
    done <"$1"
}

# Prints those that are there: those_there LIST
those_there() {
    local place
    while read -r place; do
        [[ ! -e /$place ]] || echo "/$place"
    done <"$1"
}
