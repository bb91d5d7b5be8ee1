# fleetmem probe, protocol 1: prints one frame of memory figures for each request read. Writes nothing.
#
#   request   sample <id> status|ps user|all
#   frame     BEGIN fleetmem/1 <id>
#             M <MemTotal> <MemAvailable> <SwapTotal> <SwapFree>               KiB
#             K <oom_kill> <boot id>
#             P <pid> <uid> <vsz> <rss> <peak> <anon> <swap> <name>            KiB, one per process
#             E <text>                                                         only when something failed
#             END <id> <exit status> <number of P lines>
#
# "-" stands for what the kernel does not tell. Plain POSIX: dash, bash, busybox ash; mawk, gawk, busybox awk.
# It ends when its standard input ends. It leaves its own helpers (awk, ps) out of the frame: they would be new pids in
# every sample.
LC_ALL=C
PATH=$PATH:/usr/bin:/bin:/usr/sbin:/sbin
export LC_ALL PATH
# Each of these changes what ps prints.
unset COLUMNS CMD_ENV LIBPROC_HIDE_KERNEL POSIXLY_CORRECT PS_FORMAT PS_PERSONALITY

boot=-
{ cd /proc && read -r boot <sys/kernel/random/boot_id; } 2>/dev/null
ps_is_busybox=

# All paths are below /proc. `slurp` takes a whole file as one record, since no \001 is in it: far cheaper than its lines. A process that is gone by
# now has no file. Numbers are printed with OFMT: without it, mawk 1.3.3 prints those from 2^31 on with an exponent.
functions='
function slurp(path, separator) {
    text = ""
    separator = RS
    RS = "\001"
    if ((getline text <path) > 0) close(path)
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

# Kernel threads and zombies have no VmSize, and own no memory.
from_status="$functions"'
function row(pid, vsz, rss) {
    slurp(pid "/status")
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
BEGIN {
    OFMT = CONVFMT = "%.0f"
    head()
    if (ARGC > 1) for (i = 1; i < ARGC; i++) row(ARGV[i])
    else while ((getline pid) > 0) row(pid)
    end(0)
    exit
}'

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

# Its list of processes is made before awk is started, so awk is not on it.
sample_status() {
    set -- [0-9]*
    awk -v id="$id" -v kind=status -v which="$which" -v boot="$boot" "$from_status" "$@" </dev/null
    status=$?
    if [ $status -eq 126 ]; then # more processes than fit on a command line
        printf '%s\n' "$@" | awk -v id="$id" -v kind=status -v which="$which" -v boot="$boot" "$from_status"
        status=$?
    fi
    return $status
}

sample_ps() {
    total=
    [ -r meminfo ] || total=$(($(sysctl -n hw.memsize 2>/dev/null || sysctl -n hw.physmem) / 1024))
    {
        sh -c 'echo "X $$"; exec ps axww -o stat= -o pid= -o ppid= -o uid= -o vsz= -o rss= -o comm='
        echo "S $?"
    } | awk -v id="$id" -v kind=ps -v which="$which" -v boot="$boot" -v total="$total" -v self="$$" "$from_ps"
}

while read -r verb id kind which; do
    case $id in '' | *[!0-9]*) id=0 ;; esac
    case $verb.$kind.$which in
    sample.status.user | sample.status.all) ;;
    sample.ps.user | sample.ps.all)
        if [ -z "$ps_is_busybox" ]; then
            case $(ps --help 2>&1) in *[Bb]usy[Bb]ox*) ps_is_busybox=yes ;; *) ps_is_busybox=no ;; esac
        fi
        if [ $ps_is_busybox = yes ]; then
            fail "$id" 127 "ps here is busybox, which prints rounded sizes: use the probe kind status"
            continue
        fi
        ;;
    *)
        fail "$id" 2 "not a request of protocol 1"
        continue
        ;;
    esac
    # mawk gives up when a process ends between the opening and the reading of its file: once more, and again.
    "sample_$kind" || { [ $? -lt 126 ] && "sample_$kind"; } || "sample_$kind" || fail "$id" $? "awk ended with status $?"
done
