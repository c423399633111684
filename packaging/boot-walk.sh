# shellcheck shell=sh
# What packaging/boot-test.sh checks on the booted system, in this order. It uses that script's functions.

config=/etc/fieldbridge/fieldbridge.toml
credentials=/run/credentials/fieldbridge.service
status_line() { # so many identities
    is StatusText "$1 of $1 identities connected, 2 of 2 buses open, 0 commands in doubt since the start"
}
restarts() { property NRestarts; }
restarted_since() { [ "$(restarts)" -gt "$1" ] && is ActiveState active; }
answers() { # a command from the site, by the serial line
    at "fieldbridge exec pump-7 read-first"
}
was_done() { [ "$(effects "rtu 0 $value")" = 1 ] && at "fieldbridge ledger show pump-7 $1 --json" | grep -F succeeded; }
executes() { # id: a message that is executed once, by the serial line
    value=$((sent + 100)) sent=$((sent + 1))
    send pump-7 "$1" set-speed "$value" && eventually 30 was_done "$1"
}

echo "== fresh"
installs() { at "apt install --yes ./fieldbridge_${1}_$arch.deb"; }
knows_the_repository() { # as docs/INSTALLATION.md has it; apt by itself takes a server that is away for a warning
    at "cp /srv/repo/fieldbridge-archive-keyring.gpg /usr/share/keyrings/" &&
        at "cp /srv/repo/fieldbridge.sources /etc/apt/sources.list.d/" && at "apt update --error-on=any"
}
check "apt update takes the signed index of the repository" knows_the_repository
is_found_by_hash() { grep -E 'GET /dists/stable/main/binary-[a-z0-9]+/by-hash/SHA(256|512)/[0-9a-f]+ .* 200 ' "$work/served"; }
check "and finds it by its hash" is_found_by_hash
check "apt install fieldbridge" at "apt install --yes fieldbridge"
cp "$work/said" "$work/apt"
is_version() { at "dpkg-query --show --showformat='\${Version}' fieldbridge" | grep -xF "$1"; }
check "the newest of two versions is installed" is_version "$old_version"
says_what_to_do() { grep -F "fill in $config" "$work/apt" && is ExecMainStatus 78; }
check "it says what to do while hub.host is empty, and the service ends with 78" says_what_to_do
host_line=$(at "grep -n '^host = ' $config" | cut -d: -f1)
check "the journal names the key and the remedy" journal_has "$config:$host_line:1: hub.host: "
not_tried_again() { is NRestarts 0 && is ActiveState failed && is SubState failed; }
check "the service is not tried again with the same file" not_tried_again
check "the service is enabled" at "systemctl is-enabled fieldbridge"
user_has_ports() { [ "$(at "id -nG fieldbridge")" = "fieldbridge dialout" ]; }
check "the user fieldbridge may use serial ports" user_has_ports

echo "== configured"
pump_key=$(key pump-7) valve_key=$(key valve-3)
initializes() {
    echo "$pump_key" | inside fieldbridge init --host "$hub_host" --device pump-7 --port "$port" --baud 19200 --parity none \
        --unit 7 --key-file -
}
check "fieldbridge init" initializes
profile=$(sed -n 's/^profile = "\(.*\)"/\1/p' "$root$config")
cat >>"$root$config" <<END

[profile.$profile.command.set-speed]
write = { table = "holding", address = 0 }
idempotent = false
END
cat >"$root/etc/fieldbridge/conf.d/boot-test.toml" <<END
hub.address = "127.0.0.1:8883"
hub.ca_file = "/srv/hub-ca.pem"

[bus.plant]
kind = "modbus-tcp"
address = "127.0.0.1:502"

[device.valve-3]
bus = "plant"
unit = 3
profile = "valve"
key_file = "keys/valve-3.key"

[profile.valve.command.dispense]
write = { table = "holding", address = 10 }
idempotent = false
END
echo "$valve_key" >"$root/etc/fieldbridge/keys/valve-3.key"
at "chown root:fieldbridge /etc/fieldbridge/keys/* && chmod 640 /etc/fieldbridge/keys/*"
check "fieldbridge check" at "fieldbridge check"
check "systemctl enable --now fieldbridge" at "systemctl enable --now fieldbridge"
check "the service is active" is ActiveState active
check "both identities connect" eventually 30 is_connected 2
check "systemctl status says so in words" eventually 10 status_line 2
echo "      $(property StatusText)"
check "journalctl -u fieldbridge says that it is ready" at "journalctl -u fieldbridge --no-pager | grep -w ready"
check "fieldbridge check --live" at "fieldbridge check --live"
check "fieldbridge exec reads from the slave on the serial line" answers
check "a message from the hub is executed once on the serial line" executes m-1
has_result() { # so many results, and feedback of as many messages
    hub "{\"op\":\"telemetry\",\"wait\":$1,\"timeoutMs\":${2:-30000}}" && telemetry=$answer &&
        hub "{\"op\":\"feedback\",\"wait\":$1,\"timeoutMs\":${2:-30000}}" && feedback=$answer
}
check "the hub has its result, and it is completed there" has_result 1
check "the ledger has it" at "fieldbridge ledger show pump-7 m-1"
check "the journal finds it by its message and its outcome" \
    at "journalctl --no-pager --output=cat FIELDBRIDGE_MESSAGE_ID=m-1 FIELDBRIDGE_OUTCOME=succeeded | grep -F pump-7"
check "the journal explains an event" \
    at "journalctl --no-pager --catalog MESSAGE_ID=32da177b48ab4af8a10af72a17345bb6 | grep -F 'fieldbridge serves'"
bundle_without_secret() {
    at "fieldbridge support-bundle --output /root/support.tar.gz" && tar -xOzf "$root/root/support.tar.gz" >"$work/support" &&
        grep -qF m-1 "$work/support" && grep -qF ActiveState=active "$work/support" &&
        ! grep -F -e "$pump_key" -e "$valve_key" "$work/support"
}
check "a support bundle has them, and no key" bundle_without_secret


echo "== upgraded with commands in flight"
upgrade() {
    at "apt update --quiet && apt upgrade --yes -o Dpkg::Options::=--force-confold" >"$work/apt" 2>&1 &
    apt=$! n=0
    while kill -0 "$apt" 2>/dev/null; do
        # The hub's queue holds 50.
        if send valve-3 "up-$((n + 1))" dispense "$((n + 1))" >/dev/null; then n=$((n + 1)); else sleep 0.1; fi
    done
    wait "$apt" || { cat "$work/apt"; return 1; }
    is ActiveState active && is_version "$new_version"
}
was_restarted_between() { # commands were carried out by the daemon before, and by the one after
    after=$(at "fieldbridge status --json" | python3 -c '
import json, sys
print(next(device["executed"] for device in json.load(sys.stdin)["devices"] if device["id"] == "valve-3"))')
    echo "$after of $n by the daemon after the upgrade"
    [ "$after" -gt 0 ] && [ "$after" -lt "$n" ]
}
each_once() {
    has_result "$((n + 1))" 60000 || return 1
    TELEMETRY=$telemetry FEEDBACK=$feedback python3 - "$n" "$root/srv/effects" <<'END'
import collections, json, os, sys
wanted = {f"up-{n}" for n in range(1, int(sys.argv[1]) + 1)}
done = collections.Counter(open(sys.argv[2]).read().splitlines())
done = [done[f"tcp 10 {n}"] for n in range(1, len(wanted) + 1)]
results = [json.loads(event["body"]) for event in json.loads(os.environ["TELEMETRY"])["telemetry"]]
told = {result["messageId"]: result["status"] for result in results}
feedback = collections.Counter(
    (record["originalMessageId"], record["statusCode"]) for record in json.loads(os.environ["FEEDBACK"])["feedback"])
print(f"lost {done.count(0)}, repeated {sum(count > 1 for count in done)} of {len(wanted)}")
assert done == [1] * len(wanted), "the slave has counted otherwise"
assert all(told.get(id) == "succeeded" for id in wanted), "the hub was told otherwise"
assert all(feedback[id, "Success"] == 1 for id in wanted), "the hub has completed otherwise"
END
}
check "a newer version is published" publish "$next"
check "apt upgrade while messages come" upgrade
check "both identities connect again" eventually 30 is_connected 2
check "each of $n messages was executed once, reported and completed: none lost, none repeated" each_once
sed 's/^/      /' "$work/said"
check "commands were in flight on both sides of the upgrade" was_restarted_between
sed 's/^/      /' "$work/said"
keeps_conffile() { grep -qF "[profile.$profile.command.set-speed]" "$root$config" && [ -e "$root$config.dpkg-dist" ]; }
check "the edited configuration survives, and the package's lies beside it" keeps_conffile

echo "== back to an older version"
pid=$(property MainPID)
refuses_older() { ! at "apt install --yes --allow-downgrades fieldbridge=$older_version" >"$work/apt" 2>&1; }
check "apt does not go back to a version that does not know this ledger" refuses_older
says_why() { grep -F -A 3 "is too old for the ledger /var/lib/fieldbridge/ledger.db" "$work/apt" || { cat "$work/apt"; false; }; }
check "and says why" says_why
sed 's/^/      /' "$work/said"
was_left_alone() { is MainPID "$pid" && is_version "$new_version" && at "dpkg --audit" >"$work/audit" && [ ! -s "$work/audit" ]; }
check "the daemon was not even stopped, and nothing is half installed" was_left_alone
# As docs/INSTALLATION.md has it.
goes_back() {
    at "systemctl stop fieldbridge" &&
        at "mv /var/lib/fieldbridge/ledger.db /var/lib/fieldbridge/ledger.db.newer" &&
        at "apt install --yes --allow-downgrades -o Dpkg::Options::=--force-confold fieldbridge=$older_version" &&
        is_version "$older_version"
}
check "without that ledger it goes back, and begins with a new one" goes_back
returns() {
    at "systemctl stop fieldbridge && mv /var/lib/fieldbridge/ledger.db.newer /var/lib/fieldbridge/ledger.db" &&
        at "apt upgrade --yes -o Dpkg::Options::=--force-confold" && is_version "$new_version"
}
check "and is upgraded again, with the ledger of before" returns
check "both identities connect" eventually 30 is_connected 2
sed -i 's/^Origin: .*/Origin: somebody else/' "$root/srv/repo/dists/stable/InRelease"
refuses_changed() { at "apt update" 2>&1 | grep -F "signatures were invalid: BADSIG"; }
check "apt update does not take an index that was changed" refuses_changed

echo "== the sandbox"
check "systemd-analyze security: at most 1.5" at "systemd-analyze security --no-pager --threshold=15 fieldbridge"
grep -F "Overall exposure" "$work/said" | sed 's/^/      /'
in_ports_group() { at "grep -w \"\$(getent group dialout | cut -d: -f3)\" /proc/\$(systemctl show --property=MainPID --value fieldbridge)/status | grep '^Groups:'"; }
check "the daemon is in the group dialout" in_ports_group
# The unit, with another program.
cp packaging/boot-probe.py "$root/srv/probe"
probe() { # ask | not: whether it may ask for the clock's state
    sed -e "s/^Type=.*/Type=oneshot/; s|^ExecStart=.*|ExecStart=/usr/bin/python3 /srv/probe $1|" \
        -e '/^ExecReload=\|^Restart\|^WatchdogSec=\|^Runtime\|^StartLimit/d' systemd/fieldbridge.service \
        >"$root/etc/systemd/system/probe.service"
    at "systemctl daemon-reload" &&
        at "systemctl start probe || { journalctl -u probe --no-pager --output=cat; false; }"
}
check "in it nothing else can be written, no other kind of socket be had, the clock not be set" probe not
at "mkdir -p /etc/systemd/system/probe.service.d && ln -s /usr/share/fieldbridge/kernel-clock.conf /etc/systemd/system/probe.service.d/"
check "with kernel-clock.conf the clock's state can be asked for, and still not be set" probe ask
at "rm -r /etc/systemd/system/probe.service.d"
at "rm /etc/systemd/system/probe.service"

echo "== reloaded"
type=notify
[ "$(at "systemctl --version" | sed -n '1s/^systemd \([0-9]*\).*/\1/p')" -lt 253 ] || type=notify-reload
check "the service is of the type that this systemd knows best: $type" is Type "$type"
pid=$(property MainPID)
lamp_key=$(key lamp-1)
(umask 077 && echo "$lamp_key" >"$root/etc/fieldbridge/keys/lamp-1.key")
at "chown root:fieldbridge /etc/fieldbridge/keys/* && chmod 640 /etc/fieldbridge/keys/*"
cat >"$root/etc/fieldbridge/conf.d/lamp-1.toml" <<END
[device.lamp-1]
bus = "plant"
unit = 4
profile = "valve"
key_file = "keys/lamp-1.key"
END
knows_lamp() { at "fieldbridge status --json" | grep -F '"id":"lamp-1"'; }
reloads() { at "systemctl reload fieldbridge" && knows_lamp && is MainPID "$pid" && is ActiveState active; }
check "systemctl reload waits until a new device is served" reloads
check "and it connects" eventually 30 is_connected 3
echo 'unti = 4' >>"$root/etc/fieldbridge/conf.d/lamp-1.toml"
mark_journal
refuses() { ! at "systemctl reload fieldbridge"; }
check "systemctl reload fails on an error" refuses
check "and the journal says which" journal_has "conf.d/lamp-1.toml:6:1: device.lamp-1.unti: "
goes_on() { is MainPID "$pid" && is ActiveState active && is_connected 3 && answers; }
check "and the daemon goes on as before" goes_on
says_errors() { property StatusText | grep -F "THE NEW CONFIGURATION HAS ERRORS"; }
check "and the status line says so" eventually 10 says_errors
sed -i '/^unti/d' "$root/etc/fieldbridge/conf.d/lamp-1.toml"
check "a mended file is taken up" at "systemctl reload fieldbridge"
rm "$root/etc/fieldbridge/conf.d/lamp-1.toml"
check "a device that is gone from the files is not served any more" at "systemctl reload fieldbridge"
check "two identities stay connected" eventually 30 is_connected 2
check "a message is executed once after all that" executes m-2

echo "== keys as credentials"
# docs/SECURITY.md says the same.
at "mkdir -p /etc/systemd/system/fieldbridge.service.d"
at "systemd-creds encrypt --name=valve-3.key /etc/fieldbridge/keys/valve-3.key /etc/fieldbridge/keys/valve-3.cred" >/dev/null 2>&1 || true
at "rm /etc/fieldbridge/keys/valve-3.key; chown root:root /etc/fieldbridge/keys/*; chmod 600 /etc/fieldbridge/keys/*"
cat >"$root/etc/systemd/system/fieldbridge.service.d/keys.conf" <<END
[Service]
LoadCredential=pump-7.key:/etc/fieldbridge/keys/pump-7.key
LoadCredentialEncrypted=valve-3.key:/etc/fieldbridge/keys/valve-3.cred
END
sed -i "s|^key_file = .*|key_file = \"$credentials/pump-7.key\"|" "$root$config"
sed -i "s|^key_file = .*|key_file = \"$credentials/valve-3.key\"|" "$root/etc/fieldbridge/conf.d/boot-test.toml"
mark_journal
check "systemctl restart fieldbridge, with a key by LoadCredential= and one by LoadCredentialEncrypted=" \
    at "systemctl daemon-reload && systemctl restart fieldbridge"
check "both identities connect with them" eventually 30 is_connected 2
no_remark() { ! journal_has "can be read by others"; }
check "no remark on who can read them" no_remark
check "fieldbridge check finds them" at "fieldbridge check"
check "a message is executed once" executes m-3

echo "== killed and stuck"
before=$(restarts)
check "kill -9" at "systemctl kill --signal=KILL --kill-who=main fieldbridge"
check "it is started again" eventually 30 restarted_since "$before"
check "both identities connect again" eventually 30 is_connected 2
check "a message is executed once" executes m-4
printf '[Service]\nWatchdogSec=6s\n' >"$root/etc/systemd/system/fieldbridge.service.d/watchdog.conf"
at "systemctl daemon-reload && systemctl restart fieldbridge"
check "both identities are connected under a watchdog of 6 s" eventually 30 is_connected 2
# It is fed for longer than it may be silent.
pid=$(property MainPID) before=$(restarts)
sleep 9
check "a daemon that works is left alone" is MainPID "$pid"
mark_journal
at "systemctl kill --signal=STOP --kill-who=main fieldbridge"
check "one that has stopped is found by the watchdog" eventually 40 journal_has "Watchdog timeout (limit 6s)"
check "and started again" eventually 60 restarted_since "$before"
check "both identities connect again" eventually 30 is_connected 2
check "a message is executed once" executes m-5
rm -r "$root/etc/systemd/system/fieldbridge.service.d"
sed -i "s|^key_file = .*|key_file = \"keys/pump-7.key\"|" "$root$config"
sed -i "s|^key_file = .*|key_file = \"keys/valve-3.key\"|" "$root/etc/fieldbridge/conf.d/boot-test.toml"
(umask 077 && echo "$valve_key" >"$root/etc/fieldbridge/keys/valve-3.key")

echo "== parts that stick"
# Each in a daemon of its own, by the unit of the package. Only a program with the feature `proof` can be made to stick.
sticking="stuck-session stuck-outbox stuck-bus stuck-ledger"
place_sticking() { # name, value of its command
    folder=$root/etc/fieldbridge/$1
    mkdir "$folder"
    (umask 077 && key "$1" >"$folder/device.key")
    cat >"$folder/fieldbridge.toml" <<END
hub = { host = "$hub_host", address = "127.0.0.1:8883", ca_file = "/srv/hub-ca.pem" }
admin.socket = "/run/$1/admin.sock"
ledger.path = "/var/lib/$1/ledger.db"
bus.plant = { kind = "modbus-tcp", address = "127.0.0.1:502" }
device.$1 = { bus = "plant", unit = 3, profile = "valve", key_file = "device.key" }
profile.valve.command.dispense = { write = { table = "holding", address = 10 }, idempotent = false }
END
    sed -e "s|^ExecStart=.*|ExecStart=/usr/bin/fieldbridge run --config /etc/fieldbridge/$1/fieldbridge.toml|" \
        -e "s|^WatchdogSec=.*|WatchdogSec=6s\nEnvironment=FIELDBRIDGE_STICK_AT=${1#stuck-}|" \
        -e "s#^\(State\|Runtime\)Directory=.*#\1Directory=$1#; /^ExecReload=/d" systemd/fieldbridge.service \
        >"$root/etc/systemd/system/$1.service"
}
start_sticking() {
    at "chown -R root:fieldbridge /etc/fieldbridge/stuck-* && chmod -R u=rwX,g=rX,o= /etc/fieldbridge/stuck-*" || return 1
    # The write by which a new ledger comes to be trusted would be the one that sticks.
    for name in $sticking; do
        at "install -d -m 750 -o fieldbridge -g fieldbridge /var/lib/$name && runuser -u fieldbridge -- \
            fieldbridge ledger new --trust --config /etc/fieldbridge/$name/fieldbridge.toml" || return 1
    done
    at "systemctl daemon-reload && systemctl start $sticking" || return 1
    # The next lives are sound.
    sed -i '/^Environment=FIELDBRIDGE_STICK_AT=/d' "$root"/etc/systemd/system/stuck-*.service
    at "systemctl daemon-reload"
}
serves() { at "timeout 5 fieldbridge status --json --config /etc/fieldbridge/$1/fieldbridge.toml" | grep -F '"connected":1'; }
get_command() { # names; the hub keeps nothing for a device that was never connected
    for name; do
        eventually 30 serves "$name" && send "$name" "$name" dispense "$(effect_of "$name")" || return 1
    done
}
effect_of() { # the value that its command writes
    case "$1" in
    stuck-session) echo 9001 ;;
    stuck-outbox) echo 9002 ;;
    stuck-bus) echo 9003 ;;
    stuck-ledger) echo 9004 ;;
    esac
}
were_restarted() {
    for name in $sticking; do
        at "journalctl -u $name --no-pager --output=cat" >"$work/journal"
        grep "is stuck" "$work/journal" | head -n 1 && grep -F "Watchdog timeout (limit 6s)" "$work/journal" &&
            [ "$(at "systemctl show --property=NRestarts --value $name")" -gt 0 ] ||
            { echo "$name was not restarted"; return 1; }
    done
}
have_ended() { # what waited on the bus that stuck has passed its deadline; everything else is done, once
    for name in $sticking; do
        state=succeeded
        [ "$name" != stuck-bus ] || state=expired
        found=$(effects "tcp 10 $(effect_of "$name")")
        echo "$name: done $found times"
        at "fieldbridge ledger show $name $name --json --config /etc/fieldbridge/$name/fieldbridge.toml" | grep -F "\"$state\"" || return 1
        [ "$state" = expired ] && wanted=0 || wanted=1
        [ "$found" = "$wanted" ] || return 1
    done
}
if grep -q FIELDBRIDGE_STICK_AT "$root/usr/bin/fieldbridge"; then
    for name in $sticking; do place_sticking "$name"; done
    check "daemons whose session, outbox, bus and ledger stick are started" start_sticking
    # These two stick once they have something to do.
    check "two have a command" get_command stuck-outbox stuck-bus
    check "the watchdog finds each of the four, and systemd starts it again" eventually 150 were_restarted
    check "the others get theirs" get_command stuck-session stuck-ledger
    check "each command is done once, or in doubt" eventually 60 have_ended
    at "systemctl stop $sticking; rm -r /etc/fieldbridge/stuck-* /etc/systemd/system/stuck-* /var/lib/stuck-*; systemctl daemon-reload"
else
    echo "      left out: this program has no feature for it (scripts/test.sh has one that has)"
fi

echo "== removed, installed again, purged"
check "apt remove fieldbridge" at "apt remove --yes fieldbridge"
stays() {
    for path in "$config" /etc/fieldbridge/keys/pump-7.key /var/lib/fieldbridge/ledger.db; do
        [ -e "$root$path" ] || { echo "$path is gone"; return 1; }
    done
    [ ! -e "$root/usr/bin/fieldbridge" ] && [ ! -e "$root/usr/lib/systemd/system/fieldbridge.service.d" ] &&
        is ActiveState inactive
}
check "configuration, keys and ledger stay, and nothing runs" stays
check "installed again" installs "$new_version"
check "it serves at once with what it had" eventually 30 is_connected 2
check "and remembers what it did" at "fieldbridge ledger show pump-7 m-1"
no_secret() { ! at "journalctl --no-pager" | grep -F -e "$pump_key" -e "$valve_key" -e "$lamp_key"; }
check "no key is in the journal" no_secret
keeps_copies() {
    at "mkdir -p /media/usb && systemctl disable --now fieldbridge" &&
        at "fieldbridge ledger backup /media/usb/ledger-last.db" &&
        at "tar --create --gzip --file /media/usb/fieldbridge.tar.gz --directory / etc/fieldbridge"
}
check "a last copy is taken of ledger and configuration" keeps_copies
# What its user has put there is its user's.
at "rm /etc/apt/sources.list.d/fieldbridge.sources /usr/share/keyrings/fieldbridge-archive-keyring.gpg"
check "apt purge fieldbridge" at "apt purge --yes fieldbridge"
nothing_stays() {
    found=$(at "find /etc /usr /var /run -xdev -name '*fieldbridge*' -not -name '*.deb' -not -path '/var/log/*' -not -path '/run/log/*'; getent passwd fieldbridge; getent group fieldbridge; id -nG fieldbridge 2>/dev/null")
    [ -z "$found" ] || { echo "$found"; return 1; }
}
check "nothing of it stays: no file, no user, no group" nothing_stays

echo "== on another gateway"
# As docs/REPLACING-A-GATEWAY.md has it. What was purged is the gateway that was switched off.
check "installed on a gateway that knows nothing" installs "$new_version"
takes_over() {
    at "systemctl stop fieldbridge" &&
        at "tar --extract --gzip --file /media/usb/fieldbridge.tar.gz --directory /" &&
        at "fieldbridge ledger restore /media/usb/ledger-last.db && fieldbridge ledger new --trust" &&
        at "fieldbridge check && systemctl enable --now fieldbridge"
}
check "it takes over configuration, keys and ledger" takes_over
check "both identities connect" eventually 30 is_connected 2
check "it remembers what the other one did" at "fieldbridge ledger show pump-7 m-1"
check "a message is executed once, and nothing is in doubt" executes m-6
