# fleetmem probe, protocol 2: prints one frame of memory figures for each request read. Writes nothing.
#
#   request   sample <id> status user|all [<base> [<pid>...]]
#                                             <base>: id of the frame that the collector has; its answer holds the changes
#                                             since then. 0, none, or another one than the last: everything, read anew
#                                             <pid>: processes that Z lines have named; read through their threads
#             sample <id> ps user|all         the answer is a frame of protocol 1
#             facts <id> host|cost            likewise; asked by `fleetmem doctor` alone
#             oom <id>                        what tells who was killed for memory
#             pss <id> <pid>...               proportional shares of these processes
#   frame     BEGIN fleetmem/2 <id> <base>    base 0: nothing that was told before holds any more
#             M <MemTotal> <MemAvailable> <SwapTotal> <SwapFree> <Hugetlb>                 KiB
#             K <oom_kill> <boot id>
#             S <some total> <full total> <some avg10> <full avg10>                        us, us, %, %: PSI of memory
#             U <uptime>                                                                   s
#             C <number> <limit> <path>                                                    bytes; a control group
#             N <slot> <pid> <uid> <start> <adj> <group> <vsz> <rss> <peak> <anon> <swap> <pte> <huge> <name>
#             P <slot> <vsz> <rss> <peak> <anon> <swap> <pte> <huge>                       KiB; a process that changed
#             G <slot>                                                                     a process that is gone
#             Z <pid>                         its first thread has ended, others live: name it in the next request
#             E <text>                                                                     only when something failed
#             END <id> <exit status> <rows> <sum of rss> <sum of vsz> <sum of pids>        of the whole table, KiB
#   or        AGAIN fleetmem/2 <exit status>  awk broke off, maybe within a frame: no END will come, ask again
#
# "-" stands for what the kernel does not tell. A slot that G sets free is used again in a later frame only. <start> is in
# ticks of 1/100 s since boot. Send the next request when the answer to the last one is there.
#
# Plain POSIX: dash, bash, busybox ash, ksh; mawk, gawk, busybox awk. It ends when its standard input ends.
#
# Two shells and, from the first request for status on, one awk stay for as long as the connection does:
#
#   requests -> feed -> pipe -> answer, which starts awk -> frames
#
# They are in the frame like any other process. What another request starts is not: it would be new pids every time.
LC_ALL=C
PATH=$PATH:/usr/bin:/bin:/usr/sbin:/sbin
export LC_ALL PATH
# Options and functions come with the environment, too: bash takes both from there. The next ones change what ps prints,
# the last ones what read and awk do while they wait. One that is readonly stays, and ends nothing.
set +efu
unset -f command read printf echo awk 2>/dev/null
command export TMOUT=0 2>/dev/null # for ksh93, which keeps the time of one that is unset
for name in COLUMNS CMD_ENV LIBPROC_HIDE_KERNEL POSIXLY_CORRECT PS_FORMAT PS_PERSONALITY GAWK_READ_TIMEOUT \
    GAWK_PERSIST_FILE AWKBUFSIZE MAWKBINMODE WHINY_USERS TMOUT IFS; do
    command unset $name 2>/dev/null
done

boot=-
{ cd /proc && read -r boot <sys/kernel/random/boot_id; } 2>/dev/null
# Where the kernel has it switched off, some have the file and fail to read it, which ends mawk.
pressure=
{ read -r word <pressure/memory; } 2>/dev/null && pressure=pressure/memory
ps_is_busybox=
half=$(printf %2047s '')

# Relative paths are below /proc. Records end with \001, in what comes from the shell too: a whole file is one record, far
# cheaper than its lines. Only a name or a path may hold that byte: `whole` puts such a file together. A process that is
# gone by now has no file. Numbers are printed with OFMT: without it, mawk 1.3.3 prints those from 2^31 on with an
# exponent.
functions='
function slurp(file) {
    text = ""
    getline text <file
    close(file)
}
function whole(file) {
    text = ""
    getline text <file
    rest_of(file)
    close(file)
}
function rest_of(file, more) {
    while ((getline more <file) > 0) text = text "\001" more
}
function val(key, at) {
    at = index(text, key)
    return at ? substr(text, at + length(key), 24) + 0 : "-"
}
function first_word() {
    split(text, part, " ")
    return or_none(part[1])
}
function or_none(word) {
    return word == "" ? "-" : word
}
function start_of(pid, at) {
    opened++
    whole(pid "/stat")
    if (!index(text, ") ")) return "-"
    while (at = index(text, ") ")) text = substr(text, at + 2) # as a name may hold that
    split(text, part, " ")
    return or_none(part[20])
}
function host_memory(huge) {
    print "M", val("\nMemTotal:"), val("\nMemAvailable:"), val("\nSwapTotal:"), val("\nSwapFree:") (huge == "" ? "" : " " huge)
    oom_kills()
}
function oom_kills() {
    slurp("vmstat")
    print "K", val("\noom_kill "), boot
}'

# What is remembered of each process, from frame to frame: its slot, when it was started, the text that tells who it is
# and what memory it has. Where that is the same, nothing else is looked at: nine of ten.
#
# Kernel threads and zombies have no VmSize, and own no memory. mawk 1.3.4 never frees the name of a file that it opened:
# `path` keeps one for each process, not a new one for each sample. An awk that has opened very many files ends, with
# status 0 and after its END; the next request starts a new one, which tells everything.
from_status="$functions"'
function begin() {
    turn++
    if (base + 0 == 0 || base + 0 != last + 0) forget()
    found = 0
    print "BEGIN fleetmem/2", id, base
    slurp("meminfo")
    text = "\n" text
    host_memory(val("\nHugetlb:"))
    text = ""
    if (pressure != "") slurp(pressure)
    split(text, part, /[ =\n]+/)
    print "S", or_none(part[9]), or_none(part[18]), or_none(part[3]), or_none(part[12])
    slurp("uptime")
    print "U", first_word()
    slurp("loadavg")
    low = high
    high = split(text, part, " ") >= 5 ? part[5] + 0 : 0
    if (!high) low = -1 # not told here: each pid may be a new process
    is_lap = high < low || !high
}
# The memory lines stand together, from VmSize to HugetlbPages: this many bytes, and as many more as long numbers take.
function forget(at) {
    split("", slot); split("", started); split("", kept); split("", number); split("", free); split("", seen)
    slots = frees = groups = known = sum_rss = sum_vsz = sum_pids = base = 0
    slurp("self/status")
    at = index(text, "\nVmSize:")
    bytes = at ? index(text, "\nThreads:") - at + 16 : 340
}
function group_of(pid, controller) {
    opened++
    whole(pid "/cgroup")
    text = "\n" text
    controller = match(text, /\n[0-9]+:([^:\n]*,)?memory(,[^:\n]*)?:/)
    if (controller || match(text, /\n0::/)) text = substr(text, RSTART + RLENGTH)
    else return 0
    sub(/\n.*/, "", text)
    if (!(text in number)) {
        path_of_group = text
        number[path_of_group] = ++groups
        print "C", groups, limit_of(path_of_group, controller), path_of_group
        return groups
    }
    return number[text]
}
function limit_of(group, controller, least) {
    least = "-"
    for (; length(group) > 1; sub("/[^/]*$", "", group)) {
        opened++
        if (controller) slurp("/sys/fs/cgroup/memory" group "/memory.limit_in_bytes")
        else slurp("/sys/fs/cgroup" group "/memory.max")
        text = first_word()
        if (text ~ /^[0-9]+$/ && length(text) < 19 && (least == "-" || text + 0 < least + 0)) least = text
    }
    return least
}
function vm(key) {
    return val("\nVm" key ":") " "
}
function figures_of(key) {
    text = key
    if (!index(text, "\nVmSize:")) return "0 0 - - - - -"
    return vm("Size") vm("RSS") vm("HWM") val("\nRssAnon:") " " vm("Swap") vm("PTE") val("\nHugetlbPages:")
}
function add(key, sign) {
    text = key
    if (!index(text, "\nVmSize:")) return 0
    sum_vsz += sign * val("\nVmSize:")
    sum_rss += sign * val("\nVmRSS:")
    return val("\nVmHWM:")
}
function tell(pid, start, figures, key, uid, group) {
    if (pid in slot) add(kept[pid], -1)
    else { slot[pid] = frees ? free[frees--] : slots++; known++; sum_pids += pid }
    started[pid] = start
    kept[pid] = key
    add(key, 1)
    group = group_of(pid)
    opened++
    slurp(pid "/oom_score_adj")
    print "N", slot[pid], pid, uid, start, first_word(), group, figures, name
}
function row(pid, file, at, size, key, who) {
    if ((file = path[pid]) == "") { file = path[pid] = pid "/status"; opened++ }
    text = ""
    getline text <file
    if (!(at = index(text, "\nUid:"))) {
        if (text != "") rest_of(file)
        at = index(text, "\nUid:")
    }
    close(file)
    if (!at) return
    who = substr(text, at + 5, 12) substr(text, 7, index(text, "\n") - 6)
    if (size = index(text, "\nVmSize:")) key = who substr(text, size, bytes)
    else {
        key = who (index(substr(text, 1, at), "\nState:\tZ") && val("\nThreads:") > 1 ? through_threads(pid) : "")
        if (key == who && which != "all") return
    }
    seen[pid] = turn
    found++
    if (key == kept[pid] && (pid > low ? !is_lap && pid > high : !is_lap || pid > high)) return
    name = substr(who, 13, length(who) - 13)
    change(pid, who, key, who + 0)
}
# One whose peak fell is looked at, too, as a peak never falls.
function change(pid, who, key, uid, figures, start, old) {
    figures = figures_of(key)
    if (!(pid in slot)) { tell(pid, start_of(pid), figures, key, uid); return }
    text = kept[pid]
    old = val("\nVmHWM:")
    split(figures, part, " ")
    if (part[3] * 10 < old * 9 || (pid > low) + (pid <= high) + is_lap > 1 || substr(kept[pid], 1, length(who)) != who) {
        start = start_of(pid)
        if (start != started[pid] || substr(kept[pid], 1, length(who)) != who) { tell(pid, start, figures, key, uid); return }
    }
    if (key == kept[pid]) return
    add(kept[pid], -1)
    add(key, 1)
    kept[pid] = key
    print "P", slot[pid], figures
}
function through_threads(pid, count, place, size) {
    print "Z", pid
    count = split(threads[pid], part, " ")
    for (place = 1; place <= count && !size; place++) {
        opened++
        whole(part[place] "/status")
        size = index(text, "\nVmSize:")
    }
    return size ? substr(text, size, bytes) : ""
}
function end(status, pid, count, place) {
    if (found < known) {
        count = 0
        for (pid in slot) if (seen[pid] != turn) gone[++count] = pid
        for (place = 1; place <= count; place++) {
            pid = gone[place]
            print "G", slot[pid]
            add(kept[pid], -1)
            sum_pids -= pid
            free[++frees] = slot[pid]
            delete slot[pid]; delete started[pid]; delete kept[pid]; delete seen[pid]; delete path[pid]
        }
        known -= count
    }
    if (!known) { print "E", "no process could be read with status"; status = 1 }
    print "END", id, status + 0, known, sum_rss, sum_vsz, sum_pids
    last = id
    split("", threads)
}
BEGIN { OFMT = CONVFMT = "%.0f"; RS = "\001"; begin() }
$0 + 0 { row($0); next }
$1 == "B" { id = $2; which = $3; base = $4; begin(); next }
$1 == "T" { threads[$2] = substr($0, length($2) + 4); next }
$1 == "E" { end(0); fflush(); if (opened > 10000 + 8 * known) exit }'

# The column before the name is right-aligned, so that a name with leading spaces stays whole.
from_ps="$functions"'
function head(separator) {
    print "BEGIN fleetmem/1", id
    separator = RS
    RS = "\001"
    slurp("meminfo")
    text = "\n" (text == "" ? "MemTotal: " total : text)
    host_memory("")
    RS = separator
}
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
END {
    if (!rows) { print "E", "no process could be read with ps"; status = status ? status : 1 }
    print "END", id, status + 0, rows + 0
}'

# What the kernel and systemd know of processes that were killed for memory: the counter of each control group, six levels
# deep, the lines of the kernel's log where this account may read them, and units. The counter of all is read before and
# after. Starts awk, dmesg and systemctl.
from_groups="$functions"'
BEGIN { OFMT = CONVFMT = "%.0f"; RS = "\001"; oom_kills() }
$0 != "\n" {
    slurp($0 "/memory.events.local")
    if (text == "") slurp($0 "/memory.oom_control")
    kills = val("\noom_kill ")
    if (kills == "-") next
    slurp($0 "/memory.max")
    if (text == "") slurp($0 "/memory.limit_in_bytes")
    limit = first_word()
    slurp($0 "/memory.current")
    if (text == "") slurp($0 "/memory.usage_in_bytes")
    sub(/^\/sys\/fs\/cgroup(\/memory)?/, "")
    print "O", kills, limit, first_word(), $0
}'

from_units='
BEGIN { FS = "=" }
$1 == "Id" { unit = $2 }
$1 == "Result" { result = $2 }
$1 == "NRestarts" { restarts = $2 }
$0 == "" && (result == "oom-kill" || restarts > 0) { print "R", result, restarts, unit }
$0 == "" { result = restarts = unit = "" }'

oom_evidence() {
    cgroups=/sys/fs/cgroup
    [ ! -d $cgroups/memory ] || cgroups=$cgroups/memory
    {
        set -- $cgroups
        for level in 1 2 3 4 5 6; do
            cgroups="$cgroups/*"
            set -- "$@" $cgroups/
        done
        for directory; do
            [ ! -d "$directory" ] || printf '%s\001' "${directory%/}"
        done
    } | awk -v boot="$boot" "$from_groups"
    dmesg | awk '/oom-kill:|Out of memory|Killed process|out of memory|oom_reaper/ { print "L", $0 }' | tail -n 200
    { systemctl show --no-pager -p Id -p Result -p NRestarts '*.service'; echo; } | awk "$from_units"
    awk -v boot="$boot" "$functions"'BEGIN { RS = "\001"; oom_kills() }'
} 2>/dev/null </dev/null

# Proportional and unique shares in KiB; `-` where this account may not read them.
from_shares="$functions"'
BEGIN { OFMT = CONVFMT = "%.0f"; RS = "\001" }
{
    start = start_of($0)
    slurp($0 "/smaps_rollup")
    text = "\n" text
    clean = val("\nPrivate_Clean:")
    print "A", $0, start, val("\nRss:"), val("\nPss:"), clean == "-" ? "-" : clean + val("\nPrivate_Dirty:"), val("\nSwapPss:")
}'

shares() {
    for pid; do
        case $pid in *[!0-9]*) ;; *) printf '%s\001' "$pid" ;; esac
    done | awk "$from_shares"
} 2>/dev/null

fail() {
    echo "BEGIN fleetmem/1 $1"
    echo "E $3"
    echo "END $1 $2 0"
}

# A builtin printf takes any number of words. The list is complete before awk is started for it. mawk looks at nothing
# before the 4096 bytes of its buffer are full, so as many of nothing follow each request, and a newline: `answer` reads
# lines, and finds the next request at the beginning of one.
feed_status() {
    pids=$*
    set -- [0-9]*
    printf '%s\n\001' "B $id $which $base"
    for pid in $pids; do
        is_number "$pid" || continue
        threads=
        count=0
        for thread in $pid/task/[0-9]*; do
            count=$((count + 1))
            [ $count -le 20 ] || break
            threads="$threads $thread"
        done
        printf '%s\001' "T $pid$threads"
    done
    printf '%s\001' "$@" E "$half" "$half"
    echo
}

# awk ends with its input, or by failing: mawk does when a process goes away between the opening and the reading of its
# file. What is left of that request is passed over then, and the next one starts a new awk: nothing ever spins here.
answer() {
    while read -r word id which base; do
        [ "$word" = B ] || continue
        awk -v id="$id" -v which="$which" -v base="$base" -v boot="$boot" -v pressure="$pressure" "$from_status" ||
            printf '\nAGAIN fleetmem/2 %s\n' $?
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
    } | awk -v id="$id" -v which="$which" -v boot="$boot" -v total="$total" -v self="$self" "$from_ps"
}

is_number() {
    case $1 in '' | *[!0-9]*) return 1 ;; esac
}

serve() {
    verb=$1 id=$2 kind=$3 which=$4 base=$5
    is_number "$id" || id=0
    case $verb.$kind.$which in
    sample.status.user | sample.status.all)
        is_number "$base" || base=0
        [ $# -lt 5 ] || shift 5
        feed_status "$@"
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
    oom..)
        { echo "BEGIN fleetmem/1 $id" && oom_evidence; echo "END $id 0 0"; } >&3
        ;;
    pss.*)
        [ $# -lt 2 ] || shift 2
        { echo "BEGIN fleetmem/1 $id" && shares "$@"; echo "END $id 0 0"; } >&3
        ;;
    *)
        fail "$id" 2 "not a request of protocol 2" >&3
        ;;
    esac
}

# The first request may have come with the command. It comes again, for probes that are not told with what command they
# were asked for.
feed() {
    first=${2:--}
    [ $# = 0 ] || serve "$@"
    while read -r verb id rest; do
        [ "$id" = "$first" ] || serve "$verb" "$id" $rest
        first=-
    done
}

exec 3>&1
feed "$@" | answer
