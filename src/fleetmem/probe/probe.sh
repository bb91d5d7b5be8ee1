# fleetmem probe, protocol 1: prints one frame of memory figures for each request read. Writes nothing.
#
#   request   sample <id> status|ps user|all
#             facts <id> host|cost                                             asked by `fleetmem doctor` alone
#   frame     BEGIN fleetmem/1 <id>
#             M <MemTotal> <MemAvailable> <SwapTotal> <SwapFree>               KiB
#             K <oom_kill> <boot id>
#             P <pid> <uid> <vsz> <rss> <peak> <anon> <swap> <name>            KiB, one per process
#             F <fact> <text>                                                  facts host: what is known, no others
#             C <pid> <ns> <user> <system> <children's user> <...system>       facts cost: CPU of each probe process, in
#                                                                              ns where known, and in ticks
#             E <text>                                                         only when something failed
#             END <id> <exit status> <number of P lines>
#   or        AGAIN fleetmem/1 <exit status>      awk broke off, maybe within a frame: no END will come, ask again
#
# "-" stands for what the kernel does not tell. Send the next request when the answer to the last one is there.
# Plain POSIX: dash, bash, busybox ash, ksh; mawk, gawk, busybox awk. It ends when its standard input ends.
#
# Two shells and, from the first request for status on, one awk stay for as long as the connection does:
#
#   requests -> feed -> pipe -> answer, which starts awk -> frames
#
# They are in the frame like any other process. What a request for ps starts is not: it would be new pids every time.
LC_ALL=C
PATH=$PATH:/usr/bin:/bin:/usr/sbin:/sbin
export LC_ALL PATH
# Each of these changes what ps prints.
unset COLUMNS CMD_ENV LIBPROC_HIDE_KERNEL POSIXLY_CORRECT PS_FORMAT PS_PERSONALITY

boot=-
{ cd /proc && read -r boot <sys/kernel/random/boot_id; } 2>/dev/null
ps_is_busybox=
half=$(printf %2047s '')

# All paths are below /proc. `slurp` takes a whole file as one record, since no \001 is in it: far cheaper than its
# lines. A process that is gone by now has no file. Numbers are printed with OFMT: without it, mawk 1.3.3 prints those
# from 2^31 on with an exponent.
functions='
function slurp(file, separator) {
    text = ""
    separator = RS
    RS = "\001"
    getline text <file
    close(file)
    RS = separator
}
function val(key, at) {
    at = index(text, key)
    return at ? substr(text, at + length(key), 24) + 0 : "-"
}
function head() {
    print "BEGIN fleetmem/1", id
    slurp("meminfo")
    text = "\n" (text == "" ? "MemTotal: " total : text)
    print "M", val("\nMemTotal:"), val("\nMemAvailable:"), val("\nSwapTotal:"), val("\nSwapFree:")
    slurp("vmstat")
    print "K", val("\noom_kill "), boot
}
function end(status) {
    if (!rows) { print "E", "no process could be read with " kind; status = status ? status : 1 }
    print "END", id, status, rows + 0
}'

# Kernel threads and zombies have no VmSize, and own no memory. mawk 1.3.4 never frees the name of a file that it opened:
# `path` keeps one for each process, not a new one for each sample. An awk that has seen very many processes ends, with
# status 0 and after its END; the next request starts a new one.
from_status="$functions"'
function row(pid, vsz, rss) {
    if (!(pid in path)) { path[pid] = pid "/status"; seen++ }
    slurp(path[pid])
    size = index(text, "\nVmSize:")
    if (text == "" || (!size && which != "all")) return
    name = substr(text, 7, index(text, "\n") - 7)
    uid = val("\nUid:")
    if (size) {
        text = substr(text, size, 600) # the memory lines stand together, from VmSize to VmSwap
        peak = val("\nVmHWM:")
        print "P", pid, uid, val("\nVmSize:"), val("\nVmRSS:"), peak, val("\nRssAnon:"), val("\nVmSwap:"), name
    } else print "P", pid, uid, 0, 0, "- - -", name
    rows++
}
BEGIN { OFMT = CONVFMT = "%.0f"; head() }
$1 == "B" { id = $2; which = $3; rows = 0; head(); next }
$1 == "E" { end(0); fflush(); if (seen > 10000 + 2 * rows) exit; next }
NF { row($1) }'

# The column before the name is right-aligned, so that a name with leading spaces stays whole.
from_ps="$functions"'
BEGIN { OFMT = CONVFMT = "%.0f"; head() }
$1 == "X" && NF == 2 { own = $2; next }
$1 == "S" && NF == 2 { status = $2; next }
{
    match($0, /^ *[^ ]+ +[0-9]+ +[0-9]+ +[0-9]+ +[0-9]+ +[0-9]+ ?/)
    if (RLENGTH < 0 || $3 == self || $2 == own || (which != "all" && $5 == 0)) next
    name = substr($0, RLENGTH + 1)
    if ($1 ~ /^Z/) sub(/ <defunct>$/, "", name)
    print "P", $2, $4, $5, $6, "- - -", name
    rows++
}
END { end(status) }'

fail() {
    echo "BEGIN fleetmem/1 $1"
    echo "E $3"
    echo "END $1 $2 0"
}

# A builtin printf takes any number of words. The list is complete before awk is started for it. mawk looks at nothing
# before the 4096 bytes of its buffer are full, so as many of nothing follow each request, in lines that fit into it.
feed_status() {
    set -- [0-9]*
    printf '%s\n' "B $id $which" "$@" E "$half" "$half"
}

# awk ends with its input, or by failing: mawk does when a process goes away between the opening and the reading of its
# file. What is left of that request is passed over then, and the next one starts a new awk: nothing ever spins here.
answer() {
    while read -r word id which; do
        [ "$word" = B ] || continue
        awk -v id="$id" -v kind=status -v which="$which" -v boot="$boot" "$from_status" ||
            printf '\nAGAIN fleetmem/1 %s\n' $?
    done
}

fact() {
    [ -z "$2" ] || printf 'F %s %s\n' "$1" "$2"
}

# Without awk as far as that goes: it may be what is missing. Starts date, and awk twice.
host_facts() {
    fact shell "$SHELL"
    fact awk "$(command -v awk)"
    case $(awk -W version </dev/null 2>&1) in
    *BusyBox*) fact awk_kind busybox ;;
    mawk*) fact awk_kind mawk ;;
    GNU*) fact awk_kind gawk ;;
    esac
    read -r text <sys/kernel/osrelease && fact kernel "$text"
    while IFS='=' read -r key text; do
        [ "$key" != ID ] || fact system "$text"
    done </etc/os-release
    while read -r key text _; do
        [ "$key" != Uid: ] || fact uid "$text"
    done <self/status
    [ -r 1/status ] && fact sees_init yes || fact sees_init no
    read -r text <pressure/memory && fact pressure "$text"
    awk '$2 == "/proc" && $3 == "proc" { options = $4 } END { if (options != "") print "F proc", options }' mounts
    fact unix_seconds "$(date +%s)"
} 2>/dev/null

# Starts nothing, or it would be in the figures. `children` is there with CONFIG_PROC_CHILDREN. For one that runs the
# kernel counts up to when it was woken, so that this is not in them, either.
cost_facts() {
    pids=$$
    read -r children <$$/task/$$/children
    for pid in $children; do
        children=
        read -r children <$pid/task/$pid/children
        pids="$pids $pid $children"
    done
    for pid in $pids; do
        ns=-
        read -r ns _ <$pid/schedstat
        read -r stat <$pid/stat && set -- ${stat##*") "} && printf 'C %s\n' "$pid $ns ${12} ${13} ${14} ${15}"
    done
} 2>/dev/null

sample_ps() {
    total=
    [ -r meminfo ] || total=$(($(sysctl -n hw.memsize 2>/dev/null || sysctl -n hw.physmem) / 1024))
    {
        sh -c 'echo "X $$"; exec ps axww -o stat= -o pid= -o ppid= -o uid= -o vsz= -o rss= -o comm='
        echo "S $?"
    } | awk -v id="$id" -v kind=ps -v which="$which" -v boot="$boot" -v total="$total" -v self="$self" "$from_ps"
}

serve() {
    verb=$1 id=$2 kind=$3 which=$4
    case $id in '' | *[!0-9]*) id=0 ;; esac
    case $verb.$kind.$which in
    sample.status.user | sample.status.all)
        feed_status
        ;;
    sample.ps.user | sample.ps.all)
        if [ -z "$ps_is_busybox" ]; then
            case $(ps --help 2>&1) in *[Bb]usy[Bb]ox*) ps_is_busybox=yes ;; *) ps_is_busybox=no ;; esac
            self=$(exec sh -c 'echo "$PPID"') # of this half of the pipeline: $$ is that of the whole
        fi
        if [ $ps_is_busybox = yes ]; then
            fail "$id" 127 "ps here is busybox, which prints rounded sizes: use the probe kind status" >&3
        else
            sample_ps >&3 || fail "$id" $? "awk ended with status $?" >&3
        fi
        ;;
    facts.host. | facts.cost.)
        { echo "BEGIN fleetmem/1 $id" && "${kind}_facts"; echo "END $id 0 0"; } >&3
        ;;
    *)
        fail "$id" 2 "not a request of protocol 1" >&3
        ;;
    esac
}

# The first request may have come with the command. It comes again, for probes that are not told with what command they
# were asked for.
feed() {
    first=${2:--}
    [ $# = 0 ] || serve "$@"
    while read -r verb id kind which; do
        [ "$id" = "$first" ] || serve "$verb" "$id" "$kind" "$which"
        first=-
    done
}

exec 3>&1
feed "$@" | answer
