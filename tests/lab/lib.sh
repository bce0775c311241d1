# shellcheck shell=bash
# Shell functions for tests in the lab and for the demonstration: a transcript with checks, the daemon, targets
# and initiators. To be sourced by bash with 'set -euo pipefail'; scripts/lab prepares the place.

lab_directory=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Where logs and sockets of one test are kept.
lab_scratch=$(mktemp --directory --tmpdir tcmu-pr-test.XXXXXX)
lab_portal=127.0.0.1:3260
lab_passed=0
lab_failed=0
# How much longer than elsewhere things may take: a factor. CPUs may be emulated on some kernels of the lab.
lab_patience=1
[[ ${TCMU_PR_LAB:-} != 6.* ]] || lab_patience=6

# --- The transcript ---------------------------------------------------------------------------------------

# A heading.
step() {
    printf '\n== %s\n' "$*"
}

ok() {
    printf 'ok    %s\n' "$*"
    lab_passed=$(( lab_passed + 1 ))
}

# A failed check, with the output that shows it on standard input if there is any: fail WORDS < FILE
fail() {
    printf 'FAIL  %s\n' "$*"
    lab_failed=$(( lab_failed + 1 ))
}

# Shows a command and runs it, with its output in the transcript.
run() {
    printf '$ %s\n' "$*"
    "$@"
}

# check WORDS COMMAND...: the command succeeds. Its output is shown only if it does not.
check() {
    local words=$1 status=0
    shift
    "$@" >"$lab_scratch/output" 2>&1 || status=$?
    if (( status == 0 )); then
        ok "$words"
    else
        fail "$words (exit status $status: $*)"
        sed 's/^/      /' "$lab_scratch/output"
    fi
}

# show STATUS WORDS COMMAND...: shows the command and what it says, and checks that it ends with that exit status.
# What it said can be looked at with check_said.
show() {
    local wanted=$1 words=$2 status=0
    shift 2
    printf '$ %s\n' "$*"
    "$@" >"$lab_scratch/said" 2>&1 || status=$?
    sed '/^ *$/d; s/^/    /' "$lab_scratch/said"
    if (( status == wanted )); then
        ok "$words"
    else
        fail "$words (exit status $status, not $wanted)"
    fi
}

# check_said WORDS PATTERN: what was shown last has a line that matches the extended regular expression.
check_said() {
    if grep --quiet --extended-regexp --regexp="$2" "$lab_scratch/said"; then
        ok "$1"
    else
        fail "$1 (nothing matches '$2')"
    fi
}

# check_not_said WORDS PATTERN
check_not_said() {
    if grep --quiet --extended-regexp --regexp="$2" "$lab_scratch/said"; then
        fail "$1 ('$2' matches)"
    else
        ok "$1"
    fi
}

# check_status STATUS WORDS COMMAND...: the command ends with that exit status.
check_status() {
    local wanted=$1 words=$2 status=0
    shift 2
    "$@" >"$lab_scratch/output" 2>&1 || status=$?
    if (( status == wanted )); then
        ok "$words"
    else
        fail "$words (exit status $status, not $wanted: $*)"
        sed 's/^/      /' "$lab_scratch/output"
    fi
}

# check_equal WORDS WANTED FOUND
check_equal() {
    if [[ $3 == "$2" ]]; then
        ok "$1"
    else
        fail "$1"
        printf '      wanted: %s\n      found:  %s\n' "$2" "$3"
    fi
}

# A test that ends before its closing line has failed, and says where.
lab_stopped_at='?'
set -o errtrace
trap 'lab_stopped_at="${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND"' ERR
trap 'lab_ended $?' EXIT

lab_ended() {
    [[ -n $lab_scratch ]] || return 0
    fail "the test stops early, with status $1, at $lab_stopped_at"
    tail --lines=20 "$daemon_log" 2>/dev/null | sed 's/^/      /' || true
    closing || exit 1
}

# The closing line of a test; its exit status is the test's.
closing() {
    # What is still mounted or open in it goes with the lab.
    rm --recursive --force "$lab_scratch" 2>/dev/null || true
    lab_scratch=
    printf '\n%d passed, %d failed\n' "$lab_passed" "$lab_failed"
    (( lab_failed == 0 && lab_passed > 0 ))
}

# Ends the test where going on makes no sense.
give_up() {
    fail "$*"
    closing || exit 1
}

# wait_until SECONDS COMMAND...: waits until the command succeeds, for what tells nobody when it is done. As long as
# that where CPUs are fast.
wait_until() {
    local until=$(( SECONDS + $1 * lab_patience ))
    shift
    until "$@" >/dev/null 2>&1; do
        (( SECONDS < until )) || return 1
        sleep 0.05
    done
}

# --- The daemon -------------------------------------------------------------------------------------------

# Starts 'tcmu-pr serve ARGUMENT...', with the engine that TCMU_PR_ENGINE names, and waits until it says that it is
# ready. It is daemon_pid then, and logs to daemon_log, which goes on through restarts.
daemon_log=$lab_scratch/daemon.log
daemon_pid=
daemon_listener=
# shellcheck disable=SC2034 # when it was executed, in microseconds, for the tests
daemon_began_us=
daemon_start() {
    local word socket=$lab_scratch/notify from to
    [[ -n ${TCMU_PR_BIN:-} ]] || give_up "there is no daemon: cargo build makes one, or TCMU_PR_BIN names it"
    coproc lab_await { exec "$lab_directory/await-ready" "$socket" $(( 30 * lab_patience )); }
    # shellcheck disable=SC2154 # coproc sets it
    daemon_listener=$lab_await_PID
    # Descriptors of our own: bash closes the coprocess's when it ends.
    exec {from}<&"${lab_await[0]}" {to}>&"${lab_await[1]}"
    read -r -u "$from" word
    # shellcheck disable=SC2034
    daemon_began_us=${EPOCHREALTIME/[.,]/}
    NOTIFY_SOCKET=$socket "$TCMU_PR_BIN" serve "$@" --engine "${TCMU_PR_ENGINE:-best}" </dev/null >>"$daemon_log" 2>&1 {from}<&- {to}>&- &
    daemon_pid=$!
    echo "$daemon_pid" >&"$to"
    read -r -u "$from" word
    exec {from}<&- {to}>&-
    case $word in
        ready) return ;;
        dead) wait "$daemon_pid" || word="dead (exit status $?)" ;;
    esac
    sed 's/^/      /' "$daemon_log"
    give_up "the daemon became ready: it is $word"
}

# Waits for the end of the daemon, for so many seconds, and then kills it. Its exit status is the result.
daemon_wait() {
    local pid=$daemon_pid status=0
    daemon_pid=
    # Bash would say on standard error that it was killed.
    {
        if ! wait_until "$1" daemon_gone "$pid"; then
            echo "the daemon did not end within $1 seconds" >>"$daemon_log"
            kill -KILL "$pid"
        fi
        wait "$pid" || status=$?
        wait "$daemon_listener" || true
    } 2>/dev/null
    return "$status"
}

daemon_gone() {
    [[ ! -e /proc/$1 || $(cut --delimiter=' ' --fields=3 "/proc/$1/stat") == Z ]]
}

# Whether the daemon can tell initiators apart that share a backstore.
has_tap() {
    [[ $(tcmu-pr status --json | jq --raw-output .tap.state) == attached ]]
}

# Asks the daemon to end and waits for it: its exit status.
daemon_stop() {
    kill -TERM "$daemon_pid"
    daemon_wait 30
}

# Kills the daemon as a crash would.
daemon_kill() {
    kill -KILL "$daemon_pid"
    daemon_wait 30 || true
}

# --- Targets ----------------------------------------------------------------------------------------------

# Runs targetcli commands, one a line, from standard input. Says what went wrong, else nothing.
targetcli_batch() {
    if ! "$lab_directory/targetcli-batch" >"$lab_scratch/targetcli" 2>&1; then
        cat "$lab_scratch/targetcli" >&2
        return 1
    fi
}

# export_iscsi TARGET LUN INITIATOR=BACKSTORE...: makes an iSCSI target, or adds to it, where each initiator
# finds under that LUN the backstore that is meant for it, given by its path in targetcli, and no other.
export_iscsi() {
    export_group "$1" 1 "${@:2}"
}

# The same in a portal group of that number, which has a portal of its own: export_group TARGET GROUP LUN ...
export_group() {
    local target=$1 group=$2 lun=$3 pair initiator backstore commands='' known=' '
    local tpg=/iscsi/$target/tpg$group directory=/sys/kernel/config/target/iscsi/$target/tpgt_$group portal
    portal=$(portal_of "$group")
    shift 3
    if [[ ! -d $directory ]]; then
        # By itself targetcli would give every group the same portal.
        commands+="set global auto_add_default_portal=false"$'\n'
        [[ -d ${directory%/*} ]] || commands+="/iscsi create $target"$'\n'
        (( group == 1 )) || commands+="/iscsi/$target create $group"$'\n'
        commands+="$tpg/portals create ${portal/:/ }"$'\n'
    fi
    for pair in "$@"; do
        initiator=${pair%%=*} backstore=${pair#*=}
        # A backstore that several initiators share is one LUN of the portal group.
        if [[ $known != *" $backstore "* ]]; then
            known+="$backstore "
            commands+="$tpg/luns create $backstore add_mapped_luns=false"$'\n'
        fi
        [[ -d $directory/acls/$initiator ]] ||
            commands+="$tpg/acls create $initiator add_mapped_luns=false"$'\n'
        commands+="$tpg/acls/$initiator create mapped_lun=$lun tpg_lun_or_backstore=$backstore"$'\n'
    done
    targetcli_batch <<<"$commands"
}

# The address of a portal group: portal_of GROUP
portal_of() {
    echo "${lab_portal%:*}:$(( ${lab_portal#*:} + $1 - 1 ))"
}

# Takes all targets and backstores out of the kernel again. Prints what could not be.
clear_targets() {
    iscsiadm --mode session --logout >/dev/null 2>&1 || true
    targetcli_batch <<<'/ clearconfig confirm=True' || true
    find_configured
}

# Prints the targets and backstores there are.
find_configured() {
    find /sys/kernel/config/target -mindepth 2 -maxdepth 3 -type d \
        -regextype posix-extended -regex '.*/(core/[a-z_]+_[0-9]+/[^/]+|(iscsi|loopback|vhost|xen-pvscsi)/[^/]+)' \
        -not -name discovery_auth
}

# Makes backstores of tcmu-pr on one file, which are ports of one logical unit:
# make_unit FILE SIZE NAME... The nexus label of each is its name.
make_unit() {
    local file=$1 size=$2 name commands=''
    shift 2
    for name in "$@"; do
        commands+="/backstores/user:pr create name=$name size=$size cfgstring=$file;nexus=$name"$'\n'
    done
    targetcli_batch <<<"$commands"
}

# The directory in configfs of a user backstore: user_backstore NAME
user_backstore() {
    compgen -G "/sys/kernel/config/target/core/user_*/$1"
}

# --- Initiators -------------------------------------------------------------------------------------------

# The URL of a LUN for libiscsi's tools: lun_url TARGET LUN [GROUP]
lun_url() {
    echo "iscsi://$(portal_of "${3:-1}")/$1/$2"
}

# libiscsi_suite TEST [ARGUMENT...] LUN_URL...: runs tests of libiscsi's suite (FAMILY[.SUITE[.TEST]], listed by
# 'iscsi-test-cu --list', each a whole name or a pattern) and judges its summary, as its exit status does not tell everything: it is 0 when no test
# has that name, and tests that are skipped count as passed. Prints 'N ran, N failed, N skipped' and the names of
# those that failed; the whole output is left in $lab_scratch/libiscsi. Succeeds if some ran and none failed.
# ISCSI_TEST_CU names another tool than Debian's.
libiscsi_suite() {
    local test=$1 status=0
    shift
    (cd "$lab_scratch" && exec "${ISCSI_TEST_CU:-iscsi-test-cu}" --dataloss --test="$test" "$@") \
        >"$lab_scratch/libiscsi" 2>&1 || status=$?
    libiscsi_results | awk -v status="$status" '
        { count[$1]++ }
        $1 == "failed" { failed = failed "\n  " $2 }
        END {
            printf "%d ran, %d failed, %d skipped%s\n", NR, count["failed"], count["skipped"], failed
            if (NR == 0 && status != 0) print "  it did not get to testing (exit status " status ")"
            exit !(NR > 0 && count["failed"] == 0 && status == 0)
        }'
}

# Prints what became of each test that libiscsi_suite ran, one a line: 'passed|failed|skipped SUITE.TEST [WHY]'. Some
# say that they are skipped only to --Verbose-scsi. One that does not come to its end has failed.
libiscsi_results() {
    awk '
        function tell() {
            if (name != "") print (ended == "passed" && why != "" ? "skipped" : ended), name, why
            name = ""
        }
        /^Suite: / { tell(); suite = $2 }
        / Test: / { tell(); name = suite "." $2; ended = "failed"; why = "" }
        # Parts of a test that are left out, while it goes on, are not meant.
        /\[SKIPPED\]|Skipping RTPG|SWP is not changeable/ && !/Skipping assert|restrictions on this LUN/ && why == "" {
            why = $0
            sub(/^.*(\[SKIPPED\]|[.][0-9]+) +/, "", why)
        }
        /^passed|\.\.\. *passed/ { ended = "passed" }
        /^FAILED|\.\.\. *FAILED/ { ended = "failed" }
        # What comes after the last test is not of its.
        /^Run Summary:/ { tell() }
        END { tell() }' "$lab_scratch/libiscsi"
}

# The kernel's initiator, under any number of names: each name is an interface of open-iscsi's.
# initiator_login INTERFACE INITIATOR TARGET [GROUP]
initiator_login() {
    local portal
    portal=$(portal_of "${4:-1}"),${4:-1}
    if [[ ! -e /etc/iscsi/ifaces/$1 && ! -e /var/lib/iscsi/ifaces/$1 ]]; then
        iscsiadm --mode iface --interface "$1" --op new >/dev/null
        iscsiadm --mode iface --interface "$1" --op update --name iface.initiatorname --value "$2" >/dev/null
    fi
    # A node record of our own saves a discovery, and does not log in to other portals.
    iscsiadm --mode node --targetname "$3" --portal "$portal" --interface "$1" --op new >/dev/null
    iscsiadm --mode node --targetname "$3" --portal "$portal" --interface "$1" --login >/dev/null
}

# initiator_logout INTERFACE TARGET [GROUP]
initiator_logout() {
    local portal
    portal=$(portal_of "${3:-1}"),${3:-1}
    iscsiadm --mode node --targetname "$2" --portal "$portal" --interface "$1" --logout >/dev/null
}

# Prints the directory in sysfs of a LUN that INTERFACE sees: initiator_lun INTERFACE TARGET LUN
initiator_lun() {
    local session
    for session in /sys/class/iscsi_session/session*; do
        if [[ -e $session && $(<"$session/ifacename") == "$1" && $(<"$session/targetname") == "$2" ]]; then
            compgen -G "$session/device/target*/*:$3"
            return
        fi
    done
    return 1
}

# Prints a device of a LUN, and waits until there is one: initiator_device block|scsi_generic INTERFACE TARGET LUN
initiator_device() {
    local kind=$1 directory
    shift
    wait_until 10 initiator_has_device "$kind" "$@" || return 1
    directory=$(initiator_lun "$@")
    directory=$(compgen -G "$directory/$kind/*")
    echo "/dev/${directory##*/}"
}

initiator_has_device() {
    local kind=$1 directory
    shift
    directory=$(initiator_lun "$@") && directory=$(compgen -G "$directory/$kind/*") && [[ -e /dev/${directory##*/} ]]
}

# The disk, /dev/sdX: initiator_disk INTERFACE TARGET LUN
initiator_disk() {
    initiator_device block "$@"
}

# The SCSI generic device, /dev/sgN: initiator_generic INTERFACE TARGET LUN
initiator_generic() {
    initiator_device scsi_generic "$@"
}

# Logs nodes in to a target: log_in TARGET LUN NODE... The kernel's initiator is iqn.2025-01.org.tcmu-pr:NODE then,
# and its devices are disk[NODE] and generic[NODE]. NODE-2 is the way of NODE through the portal group 2.
# shellcheck disable=SC2034 # for the tests
declare -A disk generic
# shellcheck disable=SC2034 # for the tests
log_in() {
    local target=$1 lun=$2 node group
    shift 2
    for node in "$@"; do
        group=1
        [[ $node != *-* ]] || group=${node#*-}
        initiator_login "$node" "$(initiator_name "${node%-*}")" "$target" "$group" || give_up "$node logs in"
        disk[$node]=$(initiator_disk "$node" "$target" "$lun") || give_up "$node has a disk"
        generic[$node]=$(initiator_generic "$node" "$target" "$lun") || give_up "$node has a generic device"
    done
}

initiator_name() {
    echo "iqn.2025-01.org.tcmu-pr:$1"
}

# Sets the array write_10 to the command that writes 4 KiB from FILE with one WRITE (10):
# make_write_10 GENERIC PAGE FILE
make_write_10() {
    local block=$(( $2 * 8 )) address
    printf -v address '%02x ' $(( block >> 24 )) $(( block >> 16 & 255 )) $(( block >> 8 & 255 )) $(( block & 255 ))
    # shellcheck disable=SC2206 # four bytes
    write_10=(sg_raw --send=4096 --infile="$3" "$1" 2a 00 $address 00 00 08 00)
}

# Runs it. Its exit status is sg_raw's: 24 is RESERVATION CONFLICT.
write_page() {
    local write_10
    make_write_10 "$@"
    "${write_10[@]}"
}

# Fills a file with one word, 4 KiB of it: fill_page FILE WORD
fill_page() {
    head --bytes=4096 < <(yes "$2") >"$1"
}

# Prints the checksum of 4 KiB of a disk, past the page cache, or of a file: page_sum DISK PAGE
page_sum() {
    local flags=()
    [[ ! -b $1 ]] || flags=(iflag=direct)
    dd if="$1" bs=4096 skip="$2" count=1 "${flags[@]}" status=none | checksum
}

# Prints the beginning of a file's checksum: sum_of FILE
sum_of() {
    checksum <"$1"
}

checksum() {
    sha256sum | cut --characters=-16
}

# The loop fabric's initiator. Prints a device of a LUN, and waits until there is one:
# loop_device block|scsi_generic TARGET LUN
loop_device() {
    local address directory
    address=$(</sys/kernel/config/target/loopback/"$2"/tpgt_1/address)
    directory=/sys/bus/scsi/devices/$address:$3/$1
    wait_until 10 compgen -G "$directory/*" || return 1
    directory=$(compgen -G "$directory/*")
    wait_until 10 test -e "/dev/${directory##*/}" || return 1
    echo "/dev/${directory##*/}"
}

loop_disk() {
    loop_device block "$@"
}

loop_generic() {
    loop_device scsi_generic "$@"
}

# --- What initiators notice -------------------------------------------------------------------------------

# How many commands of a disk the kernel has had other answers to than GOOD: BUSY, after which it repeats them, unit
# attentions, conflicts, errors. not_good DISK
not_good() {
    echo $(( $(<"/sys/block/${1##*/}/device/ioerr_cnt") ))
}

# Reads and writes a disk with fio, in the background, until io_end; it verifies all that it has written, several times
# over: io_start DISK [ARGUMENT...]
io_start() {
    fio --name=io --filename="$1" --size=8M --rw=randrw --bsrange=4k-32k --iodepth=32 --ioengine=libaio --direct=1 \
        --verify=crc32c --verify_fatal=1 --loops=1000 --time_based --runtime=300 "${@:2}" \
        --output="$lab_scratch/fio" >"$lab_scratch/fio-errors" 2>&1 &
    fio_pid=$!
}

# fio ends by itself on the first error, and when it is asked to, with status 0 only if there was none (128 is the
# signal's own).
io_end() {
    local status=0
    kill -INT "$fio_pid"
    wait "$fio_pid" || status=$?
    cat "$lab_scratch/fio-errors" "$lab_scratch/fio"
    (( status == 0 || status == 128 )) && ! grep --quiet --extended-regexp 'error|verify:|bad' "$lab_scratch/fio-errors" &&
        grep --quiet 'err= 0' "$lab_scratch/fio"
}

# Waits until a disk has had answers to so many commands more: io_goes_on DISK COMMANDS
io_goes_on() {
    io_count=/sys/block/${1##*/}/device/iodone_cnt
    io_wanted=$(( $(<"$io_count") + $2 ))
    wait_until 30 io_is_done
}

io_is_done() {
    (( $(<"$io_count") >= io_wanted ))
}
