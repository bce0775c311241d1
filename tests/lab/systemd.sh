# shellcheck shell=bash
# A systemd of the lab's own, for tests of the service: to be sourced after lib.sh.

# What services say: there is no journal here. What systemd says of them is in the kernel's log.
# shellcheck disable=SC2154 # lib.sh sets it
service_log=$lab_scratch/services.log

# The daemon's own words.
service_log() {
    grep --extended-regexp ' tcmu_pr(::|])' "$service_log"
}

# Starts systemd in a namespace of processes, with nothing but what it is asked for: a boot takes User Mode Linux minutes.
systemd_start() {
    systemd_launch lab.target
    wait_until 30 systemd_runs || give_up "systemd starts"
}

# The same, with a target that is made already, and without waiting until all that it wants is there: systemd_launch UNIT
systemd_launch() {
    if [[ $TCMU_PR_LAB == host ]]; then
        ok "left out: it would change this machine"
        closing
        exit
    fi
    mountpoint --quiet /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
    printf '[Unit]\nDefaultDependencies=no\n' | tee /etc/systemd/system/{lab,sysinit}.target >/dev/null
    mkdir --parents /etc/systemd/system/service.d
    printf '[Service]\nStandard%s=append:%s\n' Output "$service_log" Error "$service_log" >/etc/systemd/system/service.d/log.conf
    # Nor may a policy of the machine's keep dpkg from starting services.
    rm --recursive --force /etc/systemd/system/sysinit.target.wants /usr/sbin/policy-rc.d
    # The kernel would drop what is said in quick succession.
    echo on >/proc/sys/kernel/printk_devkmsg
    # Mounts reach services, as on a node.
    unshare --pid --mount --propagation shared --fork --kill-child bash -c "
        mount -t proc proc /proc
        mount -t tmpfs none /usr/lib/systemd/system/sysinit.target.wants
        container=lab exec /usr/lib/systemd/systemd --system --unit=$1 --log-target=kmsg" </dev/null >/dev/null 2>&1 &
    systemd_launcher=$!
    wait_until 30 systemd_answers || give_up "systemd answers"
}

systemd_answers() {
    systemd_pid=$(pgrep --parent "$systemd_launcher") && inside systemctl show --property=Version
}

systemd_runs() {
    [[ $(inside systemctl is-system-running) == running ]]
}

# Whether that systemd and all that it started has ended.
systemd_gone() {
    ! kill -0 "$systemd_launcher" 2>/dev/null
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
