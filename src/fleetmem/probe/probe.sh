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
# It ends when its standard input ends. It leaves its own helpers (grep, awk, ps) out of the frame: they would be new
# pids in every sample.
LC_ALL=C
PATH=$PATH:/usr/bin:/bin:/usr/sbin:/sbin
export LC_ALL PATH
# Each of these changes what ps or grep print.
unset COLUMNS CMD_ENV GREP_OPTIONS LIBPROC_HIDE_KERNEL POSIXLY_CORRECT PS_FORMAT PS_PERSONALITY

memory_keys='^(MemTotal|MemAvailable|SwapTotal|SwapFree):|^oom_kill '
status_keys="$memory_keys"'|^(Name|Pid|PPid|Uid|VmSize|VmHWM|VmRSS|RssAnon|VmSwap):'

boot=-
{ cd /proc && read -r boot <sys/kernel/random/boot_id; } 2>/dev/null
ps_is_busybox=

# One grep over all files. More processes than fit on a command line (126): the same through xargs.
read_status() {
    grep -hsE "$status_keys" meminfo vmstat [0-9]*/status 2>/dev/null
    status=$?
    if [ $status -eq 126 ]; then
        # Before xargs runs, or it would be among them.
        set -- [0-9]*/status
        grep -hsE "$memory_keys" meminfo vmstat
        echo "$@" | xargs grep -hsE "$status_keys"
        status=$?
    fi
    echo "S $status"
}

# The column before the name is right-aligned, so that a name with leading spaces stays whole.
read_ps() {
    grep -hsE "$memory_keys" /proc/meminfo /proc/vmstat ||
        echo "MemTotal: $(($(sysctl -n hw.memsize 2>/dev/null || sysctl -n hw.physmem) / 1024))"
    sh -c 'echo "X $$"; exec ps axww -o stat= -o pid= -o ppid= -o uid= -o vsz= -o rss= -o comm='
    echo "S $?"
}

frame='
function val(key) { return (key in v) ? v[key] : "-" }
function head() {
    if (opened++) return
    print "M", val("MemTotal:"), val("MemAvailable:"), val("SwapTotal:"), val("SwapFree:")
    print "K", val("oom_kill"), boot
}
# Sizes stay text: mawk 1.3.3 prints numbers from 2^31 on with an exponent.
function row(pid, ppid, uid, vsz, rss, name) {
    if (vsz == "") vsz = rss = 0
    if (ppid == self || pid in own || (which != "all" && vsz == 0)) return
    print "P", pid, uid, vsz, rss, val("VmHWM:"), val("RssAnon:"), val("VmSwap:"), name
    rows++
}
function record() {
    if (named) row(v["Pid:"], v["PPid:"], v["Uid:"], v["VmSize:"], v["VmRSS:"], name)
}
BEGIN { print "BEGIN fleetmem/1", id }
$1 == "S" && NF == 2 { record(); status = $2; next }
kind == "ps" && $1 == "X" { own[$2]; head(); split("", v); next }
kind == "ps" && opened {
    match($0, /^ *[^ ]+ +[0-9]+ +[0-9]+ +[0-9]+ +[0-9]+ +[0-9]+ ?/)
    name = substr($0, RLENGTH + 1)
    if ($1 ~ /^Z/) sub(/ <defunct>$/, "", name)
    if (RLENGTH > 0) row($2, $3, $4, $5, $6, name)
    next
}
/^Name:/ { if (named++) record(); else head(); split("", v); name = substr($0, 7); next }
{ v[$1] = $2 }
END {
    if (status > 125) print "E", (kind == "ps" ? "ps" : "grep") " cannot be run here"
    else if (!rows) { print "E", "no process could be read with " kind; status = status ? status : 1 }
    else if (kind == "status") status = 0
    print "END", id, status, rows + 0
}'

fail() {
    echo "BEGIN fleetmem/1 $1"
    echo "E $3"
    echo "END $1 $2 0"
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
    "read_$kind" | awk -v id="$id" -v kind="$kind" -v which="$which" -v boot="$boot" -v self="$$" "$frame"
    status=$?
    [ $status -eq 0 ] || fail "$id" $status "awk ended with status $status"
done
