#!/usr/bin/env bash
# What scripts/systemd looks at, beside its systemd.
set -uo pipefail

fail() { echo "systemd: $*" >&2; systemctl status --no-pager my-server passed tcp; tail -n 20 /run/heard* >&2; exit 1; }
# The same until it is so; a minute is enough for anything here.
until_so() {
    local what=$1
    shift
    for _ in $(seq 300); do "$@" 2>/dev/null && return; sleep 0.2; done
    fail "never: $what"
}
says() { [ "$(systemctl show -P "$2" "$1")" = "$3" ]; }
program() { sed -n 's/^started \([0-9]*\) .*/\1/p' "$1" | tail -n 1; }
step() { echo "$*"; }

until_so "systemd answers" systemctl is-active -q multi-user.target
systemctl start phantomd || fail "the daemon does not start"
until_so "the daemon answers" "$PHANTOM_BIN/phantom" status >/dev/null
"$PHANTOM_BIN/phantom" address new shop >/dev/null || fail "no identity"

timeout 60 systemctl start my-server || fail "it is not ready"
until_so "variables are the program's" grep -q 'mine True watchdog 2000000' /run/heard
says my-server ActiveState active || fail "not active"
step "notify: ready, by a process that is not systemd's own child"

sleep 5
says my-server NRestarts 0 || fail "restarted though it says that it lives"
old=$(program /run/heard)
touch /run/heard.silent
until_so "who falls silent is started anew" says my-server NRestarts 1
rm /run/heard.silent
until_so "the next program" bash -c '[ "$(grep -c ^started /run/heard)" = 2 ]'
[ ! -e "/proc/$old" ] || fail "the silent program is still there"
step "watchdog: heard while it lives, restarted when it is silent"

until_so "it is active again" says my-server ActiveState active
old=$(program /run/heard)
systemctl kill --kill-who=main -s KILL my-server
until_so "who is killed is started anew" bash -c '[ "$(grep -c ^started /run/heard)" = 3 ]'
until_so "what was killed is gone" bash -c "[ ! -e /proc/$old ]"
until_so "it is active again" says my-server ActiveState active
step "killed: the program goes with phantom-run, both come again"

old=$(program /run/heard)
systemctl kill -s KILL phantomd
until_so "the service comes again with its daemon" bash -c '[ "$(grep -c ^started /run/heard)" = 4 ]'
[ ! -e "/proc/$old" ] || fail "the program of the daemon before is still there"
until_so "it is active again" says my-server ActiveState active
step "daemon killed: daemon and service come again"

systemctl stop my-server || fail "it does not stop"
tail -n 1 /run/heard | grep -q terminated || fail "SIGTERM did not reach the program"
step "stopped: by SIGTERM, which the program hears"

systemctl start passed.socket || fail "no local socket"
answer=$(python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect("/run/passed.sock"); print(s.recv(10).decode())')
[ "$answer" = served ] || fail "the local socket is not served"
until_so "the local socket was passed" grep -q 'passed AF_UNIX mine True' /run/heard-passed
step "socket unit: a local socket starts the service and is served"

systemctl start tcp.socket && timeout 60 systemctl start tcp.service || fail "no TCP socket"
until_so "a listener in the place of the one that was passed" grep -q 'passed AF_INET6 mine True' /run/heard-tcp
visit='import socket, sys
address = socket.getaddrinfo("shop", 82, socket.AF_INET6, socket.SOCK_STREAM)[0][4]
print(socket.create_connection(address[:2], 60).recv(10).decode())'
[ "$("$PHANTOM_BIN/phantom-run" --quiet --identity shop python3 -c "$visit")" = served ] || fail "it is not at the identity's address"
step "socket unit: a TCP listener of this computer's loopback becomes one of the identity"

python3 "$VICTIMS/leaks.py" listen /run/leaked &
until_so "somebody listens outside" test -e /run/leaked
timeout 60 systemctl start leaks || fail "the probe does not run"
until_so "all that leaves is seen" bash -c '[ "$(sort -u /run/leaked | xargs)" = "name tcp udp unix" ]'
"$PHANTOM_BIN/phantom" unit add leaks >/dev/null && systemctl daemon-reload || fail "no drop-in"
: >/run/leaked
timeout 120 systemctl start leaks || fail "the probe does not run over Phantom"
"$PHANTOM_BIN/phantom" unit remove leaks >/dev/null && systemctl daemon-reload || fail "the drop-in stays"
# What was under way has arrived before this.
python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"over", ("127.7.7.7", 53))'
until_so "it is heard to the end" test -s /run/leaked
[ "$(xargs </run/leaked)" = udp ] || fail "a unit leaks: $(xargs </run/leaked)"
step "phantom unit add: what left without it leaves no more"

for user in root www-data; do
    file=$(systemctl show -P PIDFile forks-$user)
    timeout 60 systemctl start forks-$user || fail "the service of the old kind does not start"
    [ "$(systemctl show -P MainPID forks-$user)" = "$(cat "$file")" ] || fail "systemd takes another for the service"
    [ "$(sed -n 's/^Name:.//p' "/proc/$(cat "$file")/status")" = python3 ] || fail "the number is another's"
    systemctl stop forks-$user || fail "it does not stop"
    says forks-$user Result success || fail "it did not end as asked"
    [ ! -e "$file" ] || fail "the file with its number is still there"
done
step "of the old kind: the file with its number is seen, root's and an ordinary user's"
