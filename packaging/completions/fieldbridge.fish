# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_fieldbridge_global_optspecs
    string join \n config= h/help V/version
end

function __fish_fieldbridge_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_fieldbridge_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_fieldbridge_using_subcommand
    set -l cmd (__fish_fieldbridge_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -s h -l help -d 'Print help'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -s V -l version -d 'Print version'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "run" -d 'Run the daemon in the foreground'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "check" -d 'Read the whole configuration and report every error, with file, line, column, key and remedy'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "init" -d 'Write a first configuration: one bus, one device, one profile'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "add" -d 'Add to the configuration what is in it already in another form'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "status" -d 'Show whether anything needs you, and what the running daemon sees: identities, buses, peripherals, ledger'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "reload" -d 'Have the running daemon take up the configuration as it stands in the files now'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "log-level" -d 'Have the running daemon\'s log say more, or less, until its next start'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "ledger" -d 'Look into the ledger, beside the running daemon or without it'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "explain" -d 'Tell one command\'s story in plain words, with times, as far as the ledger knows it'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "exec" -d 'Run a configured command now, through the running daemon\'s bus'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "lock" -d 'Lock a device while somebody works on its machine: nothing is written or sent to it until it is unlocked'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "unlock" -d 'Unlock a device: what comes from now on is written to it again'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "read" -d 'Read what stands in a table of a device, through the running daemon or without it'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "scan" -d 'Find the units of a Modbus bus that answer, through the running daemon or without it'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "decode" -d 'Show registers of a device as every type and order of bytes'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "watch" -d 'Show what goes over the line of a bus, decoded, a line each'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "profile" -d 'Look at the profiles that come with the program'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "config" -d 'Look at the configuration itself'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "support-bundle" -d 'Pack into one file what somebody elsewhere needs to see of this gateway, without its secrets'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "schema" -d 'Print a JSON Schema of the configuration, for editors'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "import" -d 'Make a profile from what others have written of a peripheral'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "derive-keys" -d 'Derive the keys of devices that enrol as a group with the Device Provisioning Service, on a PC'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "send" -d 'Send a message to a device, as its back end does'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "call" -d 'Call a direct method of a device, as its back end does, and print the device\'s answer'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "feedback" -d 'Print what became of messages, as the hub says it, and take that from the hub\'s one queue'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "demo" -d 'Show the whole story on this machine, with no cloud and no hardware'
complete -c fieldbridge -n "__fish_fieldbridge_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand run" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand check" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand check" -l live -d 'Also try everything that the configuration names'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand check" -l json -d 'Print what was found as one JSON document'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l host -d 'Host name of the hub, such as contoso.azure-devices.net' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l id-scope -d 'ID Scope of the Device Provisioning Service that assigns the device to its hub, in place of a hub\'s name' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l device -d 'The device\'s id at the hub' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l registration-id -d 'Its id in the enrollment, if that is another one' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l transport -d 'How messages come: mqtt, mqtt-ws, amqp, amqp-ws or https. Without it a person is asked where only port 443 is open' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l proxy -d 'HTTP proxy to go through, such as http://proxy:3128. Without it a person is asked where neither port is open' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l port -d 'Serial port of the bus; best one from /dev/serial/by-id' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l modbus-tcp -d 'Modbus TCP server, in place of a serial port' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l baud -d 'Bits a second on the serial port' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l parity -d 'Parity on the serial port' -r -f -a "none\t'No parity bit'
even\t'Even parity, as the Modbus specification has it'
odd\t'Odd parity'"
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l unit -d 'Modbus unit id that the peripheral is set to' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l key-file -d 'File with the device\'s key in base64; - reads the key from standard input' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l connection-string-file -d 'File with the device\'s connection string' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l profile -d 'Take this profile of the examples, or of those that are shipped, in place of one that only reads a register' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l output -d 'Where to write the configuration, in place of the main configuration file' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and not __fish_seen_subcommand_from device help" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and not __fish_seen_subcommand_from device help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and not __fish_seen_subcommand_from device help" -f -a "device" -d 'Add a device, in a file of its own in `conf.d`'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and not __fish_seen_subcommand_from device help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and __fish_seen_subcommand_from device" -l bus -d 'The bus that its peripheral is on, by its name in the configuration' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and __fish_seen_subcommand_from device" -l unit -d 'Modbus unit id that the peripheral is set to' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and __fish_seen_subcommand_from device" -l profile -d 'What the hub may command: a profile of the configuration, or one that `profile list` shows' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and __fish_seen_subcommand_from device" -l transport -d 'How its messages come, if not as those of other devices: mqtt, mqtt-ws, amqp, amqp-ws or https' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and __fish_seen_subcommand_from device" -l key-file -d 'File with the device\'s key in base64; - reads the key from standard input' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and __fish_seen_subcommand_from device" -l connection-string-file -d 'File with the device\'s connection string' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and __fish_seen_subcommand_from device" -l cert-file -d 'File with the device\'s certificate' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and __fish_seen_subcommand_from device" -l cert-key-file -d 'File with the certificate\'s private key' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and __fish_seen_subcommand_from device" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and __fish_seen_subcommand_from device" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and __fish_seen_subcommand_from help" -f -a "device" -d 'Add a device, in a file of its own in `conf.d`'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand add; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand status" -l format -d 'Print it in another format' -r -f -a "prometheus\t'OpenMetrics, as Prometheus reads it'"
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand status" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand status" -l json -d 'Print one JSON document'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand status" -l watch -d 'Show it again every two seconds, until Ctrl-C'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand reload" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand reload" -l dry-run -d 'Only say what would change, and what would be refused'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand reload" -l json -d 'Print what has changed as one JSON document'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand reload" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand log-level" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand log-level" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and not __fish_seen_subcommand_from list show resolve backup restore new help" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and not __fish_seen_subcommand_from list show resolve backup restore new help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and not __fish_seen_subcommand_from list show resolve backup restore new help" -f -a "list" -d 'List rows, newest first'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and not __fish_seen_subcommand_from list show resolve backup restore new help" -f -a "show" -d 'Show one row with its whole history'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and not __fish_seen_subcommand_from list show resolve backup restore new help" -f -a "resolve" -d 'Note that somebody has looked at what a command in doubt has done: it needs nobody any more'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and not __fish_seen_subcommand_from list show resolve backup restore new help" -f -a "backup" -d 'Copy the ledger to a new file, while the daemon runs or without it'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and not __fish_seen_subcommand_from list show resolve backup restore new help" -f -a "restore" -d 'Replace the ledger by a backup, while the daemon does not run'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and not __fish_seen_subcommand_from list show resolve backup restore new help" -f -a "new" -d 'Make an empty ledger, while the daemon does not run. One that is there is moved aside to ledger.db.old-TIME'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and not __fish_seen_subcommand_from list show resolve backup restore new help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from list" -l device -d 'Only this device\'s' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from list" -l state -d 'Only rows in this state' -r -f -a "accepted\t''
executing\t''
succeeded\t''
failed\t''
rejected\t''
expired\t''
in_doubt\t''"
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from list" -l command -d 'Only of this command' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from list" -l since -d 'Only what was received then or later' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from list" -l until -d 'Only what was received then or before' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from list" -l limit -d 'At most so many' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from list" -l format -d 'How rows are printed' -r -f -a "table\t'A table'
csv\t'Comma-separated values, with a line of heads'
json\t'One JSON object a line'"
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from list" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from list" -l open -d 'Only commands in doubt that nobody has resolved'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from list" -l json -d 'Print one JSON object a line: --format json'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from list" -l follow -d 'Go on with new rows as they are made, and with the end of those that were not at theirs, until Ctrl-C'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from show" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from show" -l json -d 'Print one JSON document'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from resolve" -l note -d 'What you have found' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from resolve" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from resolve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from backup" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from backup" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from restore" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from new" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from new" -l trust -d 'Say that nothing of before is left. A ledger that is there keeps its rows, and is trusted'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from new" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from help" -f -a "list" -d 'List rows, newest first'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show one row with its whole history'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from help" -f -a "resolve" -d 'Note that somebody has looked at what a command in doubt has done: it needs nobody any more'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from help" -f -a "backup" -d 'Copy the ledger to a new file, while the daemon runs or without it'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from help" -f -a "restore" -d 'Replace the ledger by a backup, while the daemon does not run'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from help" -f -a "new" -d 'Make an empty ledger, while the daemon does not run. One that is there is moved aside to ledger.db.old-TIME'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand ledger; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand explain" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand explain" -l json -d 'Print one JSON document'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand exec" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand exec" -l override -d 'Run it also if the device is locked'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand exec" -l json -d 'Print the result as one JSON document'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand exec" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand lock" -l reason -d 'What is being done, for whoever asks' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand lock" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand lock" -l json -d 'Print the lock as one JSON document'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand lock" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand unlock" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand unlock" -l json -d 'Print one JSON document'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand unlock" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand read" -l type -d 'The type of the values; if nothing is said, bool for coils and discrete inputs, and u16 for registers' -r -f -a "bool\t''
u16\t''
i16\t''
u32\t''
i32\t''
u64\t''
i64\t''
f32\t''
f64\t''
bcd16\t''
bcd32\t''
string\t''"
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand read" -l order -d 'How the bytes of a value lie: A is the most significant of four' -r -f -a "ABCD\t''
CDAB\t''
BADC\t''
DCBA\t''"
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand read" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand read" -l json -d 'Print the values as one JSON document'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand read" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand scan" -l units -d 'The units to ask, such as 1-20 or 1,5,10-12' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand scan" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand scan" -l json -d 'Print one JSON document: every unit that was asked'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand scan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand decode" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand decode" -l json -d 'Print the registers and what they may mean as one JSON document'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand decode" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand watch" -l pcap -d 'Also write what goes over the line to a new file, as a capture for Wireshark' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand watch" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand watch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand profile; and not __fish_seen_subcommand_from list show help" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand profile; and not __fish_seen_subcommand_from list show help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand profile; and not __fish_seen_subcommand_from list show help" -f -a "list" -d 'List them: the name that a device gives as its profile, and which peripherals it is for'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand profile; and not __fish_seen_subcommand_from list show help" -f -a "show" -d 'Print one, as it would stand in the configuration'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand profile; and not __fish_seen_subcommand_from list show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand profile; and __fish_seen_subcommand_from list" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand profile; and __fish_seen_subcommand_from list" -l json -d 'Print one JSON document'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand profile; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand profile; and __fish_seen_subcommand_from show" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand profile; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand profile; and __fish_seen_subcommand_from help" -f -a "list" -d 'List them: the name that a device gives as its profile, and which peripherals it is for'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand profile; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print one, as it would stand in the configuration'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand profile; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand config; and not __fish_seen_subcommand_from show help" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand config; and not __fish_seen_subcommand_from show help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand config; and not __fish_seen_subcommand_from show help" -f -a "show" -d 'Print the configuration in force: the files merged, and what holds where they say nothing'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand config; and not __fish_seen_subcommand_from show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand config; and __fish_seen_subcommand_from show" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand config; and __fish_seen_subcommand_from show" -l origin -d 'Also say of each value where it comes from: file and line, the environment, or "default"'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand config; and __fish_seen_subcommand_from show" -l json -d 'Print one JSON document: a list of key, value, file and line'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print the configuration in force: the files merged, and what holds where they say nothing'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand support-bundle" -l since -d 'How far back the journal goes' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand support-bundle" -l output -d 'The file to write. Without it, one in this folder that is named after the time' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand support-bundle" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand support-bundle" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand schema" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand schema" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and not __fish_seen_subcommand_from sunspec wot edgex help" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and not __fish_seen_subcommand_from sunspec wot edgex help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and not __fish_seen_subcommand_from sunspec wot edgex help" -f -a "sunspec" -d 'From a SunSpec model, in the JSON in which it is published'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and not __fish_seen_subcommand_from sunspec wot edgex help" -f -a "wot" -d 'From a Thing Description of the W3C with the Modbus binding'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and not __fish_seen_subcommand_from sunspec wot edgex help" -f -a "edgex" -d 'From a device profile of EdgeX for its Modbus service, in YAML or JSON'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and not __fish_seen_subcommand_from sunspec wot edgex help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from sunspec" -l output -d 'Where the profile goes, in place of standard output. A file that is there is not overwritten' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from sunspec" -l name -d 'The profile\'s name, in place of one from the file' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from sunspec" -l base -d 'Protocol address, from 0, of the register that holds the model\'s number' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from sunspec" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from sunspec" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from wot" -l output -d 'Where the profile goes, in place of standard output. A file that is there is not overwritten' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from wot" -l name -d 'The profile\'s name, in place of one from the file' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from wot" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from wot" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from edgex" -l output -d 'Where the profile goes, in place of standard output. A file that is there is not overwritten' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from edgex" -l name -d 'The profile\'s name, in place of one from the file' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from edgex" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from edgex" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from help" -f -a "sunspec" -d 'From a SunSpec model, in the JSON in which it is published'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from help" -f -a "wot" -d 'From a Thing Description of the W3C with the Modbus binding'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from help" -f -a "edgex" -d 'From a device profile of EdgeX for its Modbus service, in YAML or JSON'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand import; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand derive-keys" -l group-key-file -d 'The file that holds the enrollment group\'s key, in base64' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand derive-keys" -l output -d 'Write each key into a file of its own in this folder, ID.key, which only its owner can read; nothing is printed then' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand derive-keys" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand derive-keys" -l json -d 'Print the keys as one JSON document'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand derive-keys" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l message-id -d 'The message\'s id; without it a new UUID, which is printed before it is sent' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l correlation-id -d 'An id of the sender\'s own, that comes back in the result event' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l user-id -d 'Who sends it' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l ttl -d 'How long it may wait for the device, at most 48h' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l ack -d 'Of which ends the hub is to say something: all of them with --wait, else none' -r -f -a "none\t'Nothing'
positive\t'That it was completed'
negative\t'Every other end'
full\t'Every end'"
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l property -d 'An application property; may be given again and again' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l data -d 'The body, in place of a command' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l data-file -d 'File with the body, in place of a command' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l content-type -d 'What the body is, such as application/json' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l content-encoding -d 'How the body is encoded, such as utf-8' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l wait -d 'Wait for the hub\'s feedback on this message, 2m unless said otherwise' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l connection-string-file -d 'File with the connection string of a shared access policy that has the right ServiceConnect' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l hub -d 'Host name of the hub, with --entra' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l transport -d 'How the hub is reached; direct methods go by HTTPS, whatever is said here' -r -f -a "amqp\t'AMQP, port 5671'
amqp-ws\t'AMQP in a WebSocket, port 443'"
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l address -d 'Where to connect in place of the hub\'s own address' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l ca-file -d 'Trust anchors to use instead of the system\'s' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l proxy -d 'HTTP proxy to go through, such as http://proxy:3128' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l proxy-credentials-file -d 'File with user:password for the proxy' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l json -d 'Print one JSON document'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -l entra -d 'Act as an identity of Microsoft Entra: AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, else the machine\'s managed identity, else whoever is logged in to az'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand send" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand call" -l message-id -d 'The id by which the gateway knows the call again; the payload becomes {"messageId": ID, "value": PAYLOAD}' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand call" -l timeout -d 'How long the device may take, 5s to 5m in whole seconds' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand call" -l connection-string-file -d 'File with the connection string of a shared access policy that has the right ServiceConnect' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand call" -l hub -d 'Host name of the hub, with --entra' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand call" -l transport -d 'How the hub is reached; direct methods go by HTTPS, whatever is said here' -r -f -a "amqp\t'AMQP, port 5671'
amqp-ws\t'AMQP in a WebSocket, port 443'"
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand call" -l address -d 'Where to connect in place of the hub\'s own address' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand call" -l ca-file -d 'Trust anchors to use instead of the system\'s' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand call" -l proxy -d 'HTTP proxy to go through, such as http://proxy:3128' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand call" -l proxy-credentials-file -d 'File with user:password for the proxy' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand call" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand call" -l json -d 'Print the answer as one JSON document'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand call" -l entra -d 'Act as an identity of Microsoft Entra: AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, else the machine\'s managed identity, else whoever is logged in to az'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand call" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand feedback" -l connection-string-file -d 'File with the connection string of a shared access policy that has the right ServiceConnect' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand feedback" -l hub -d 'Host name of the hub, with --entra' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand feedback" -l transport -d 'How the hub is reached; direct methods go by HTTPS, whatever is said here' -r -f -a "amqp\t'AMQP, port 5671'
amqp-ws\t'AMQP in a WebSocket, port 443'"
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand feedback" -l address -d 'Where to connect in place of the hub\'s own address' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand feedback" -l ca-file -d 'Trust anchors to use instead of the system\'s' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand feedback" -l proxy -d 'HTTP proxy to go through, such as http://proxy:3128' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand feedback" -l proxy-credentials-file -d 'File with user:password for the proxy' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand feedback" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand feedback" -l follow -d 'Go on until this is ended'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand feedback" -l json -d 'Print the hub\'s records, one JSON object a line'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand feedback" -l entra -d 'Act as an identity of Microsoft Entra: AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, else the machine\'s managed identity, else whoever is logged in to az'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand feedback" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and not __fish_seen_subcommand_from hub peripheral help" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and not __fish_seen_subcommand_from hub peripheral help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and not __fish_seen_subcommand_from hub peripheral help" -f -a "hub" -d 'The simulated hub alone, with a control channel on standard input and output'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and not __fish_seen_subcommand_from hub peripheral help" -f -a "peripheral" -d 'A simulated peripheral'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and not __fish_seen_subcommand_from hub peripheral help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and __fish_seen_subcommand_from hub" -l bind -d 'Where to listen; the vendor\'s SDKs insist on port 8883' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and __fish_seen_subcommand_from hub" -l host -d 'The hub\'s name' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and __fish_seen_subcommand_from hub" -l dir -d 'The folder to write certificates to' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and __fish_seen_subcommand_from hub" -l options -d 'Switches, as a JSON object, such as {"redelivery":"same-connection","lock":500}' -r
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and __fish_seen_subcommand_from hub" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and __fish_seen_subcommand_from hub" -l plain -d 'No TLS'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and __fish_seen_subcommand_from hub" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and __fish_seen_subcommand_from peripheral" -l config -d 'Main configuration file; drop-ins are looked for in `conf.d` beside it' -r -F
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and __fish_seen_subcommand_from peripheral" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and __fish_seen_subcommand_from help" -f -a "hub" -d 'The simulated hub alone, with a control channel on standard input and output'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and __fish_seen_subcommand_from help" -f -a "peripheral" -d 'A simulated peripheral'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand demo; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "run" -d 'Run the daemon in the foreground'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "check" -d 'Read the whole configuration and report every error, with file, line, column, key and remedy'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "init" -d 'Write a first configuration: one bus, one device, one profile'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "add" -d 'Add to the configuration what is in it already in another form'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "status" -d 'Show whether anything needs you, and what the running daemon sees: identities, buses, peripherals, ledger'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "reload" -d 'Have the running daemon take up the configuration as it stands in the files now'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "log-level" -d 'Have the running daemon\'s log say more, or less, until its next start'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "ledger" -d 'Look into the ledger, beside the running daemon or without it'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "explain" -d 'Tell one command\'s story in plain words, with times, as far as the ledger knows it'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "exec" -d 'Run a configured command now, through the running daemon\'s bus'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "lock" -d 'Lock a device while somebody works on its machine: nothing is written or sent to it until it is unlocked'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "unlock" -d 'Unlock a device: what comes from now on is written to it again'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "read" -d 'Read what stands in a table of a device, through the running daemon or without it'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "scan" -d 'Find the units of a Modbus bus that answer, through the running daemon or without it'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "decode" -d 'Show registers of a device as every type and order of bytes'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "watch" -d 'Show what goes over the line of a bus, decoded, a line each'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "profile" -d 'Look at the profiles that come with the program'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "config" -d 'Look at the configuration itself'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "support-bundle" -d 'Pack into one file what somebody elsewhere needs to see of this gateway, without its secrets'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "schema" -d 'Print a JSON Schema of the configuration, for editors'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "import" -d 'Make a profile from what others have written of a peripheral'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "derive-keys" -d 'Derive the keys of devices that enrol as a group with the Device Provisioning Service, on a PC'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "send" -d 'Send a message to a device, as its back end does'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "call" -d 'Call a direct method of a device, as its back end does, and print the device\'s answer'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "feedback" -d 'Print what became of messages, as the hub says it, and take that from the hub\'s one queue'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "demo" -d 'Show the whole story on this machine, with no cloud and no hardware'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and not __fish_seen_subcommand_from run check init add status reload log-level ledger explain exec lock unlock read scan decode watch profile config support-bundle schema import derive-keys send call feedback demo help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from add" -f -a "device" -d 'Add a device, in a file of its own in `conf.d`'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from ledger" -f -a "list" -d 'List rows, newest first'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from ledger" -f -a "show" -d 'Show one row with its whole history'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from ledger" -f -a "resolve" -d 'Note that somebody has looked at what a command in doubt has done: it needs nobody any more'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from ledger" -f -a "backup" -d 'Copy the ledger to a new file, while the daemon runs or without it'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from ledger" -f -a "restore" -d 'Replace the ledger by a backup, while the daemon does not run'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from ledger" -f -a "new" -d 'Make an empty ledger, while the daemon does not run. One that is there is moved aside to ledger.db.old-TIME'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from profile" -f -a "list" -d 'List them: the name that a device gives as its profile, and which peripherals it is for'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from profile" -f -a "show" -d 'Print one, as it would stand in the configuration'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "show" -d 'Print the configuration in force: the files merged, and what holds where they say nothing'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from import" -f -a "sunspec" -d 'From a SunSpec model, in the JSON in which it is published'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from import" -f -a "wot" -d 'From a Thing Description of the W3C with the Modbus binding'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from import" -f -a "edgex" -d 'From a device profile of EdgeX for its Modbus service, in YAML or JSON'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from demo" -f -a "hub" -d 'The simulated hub alone, with a control channel on standard input and output'
complete -c fieldbridge -n "__fish_fieldbridge_using_subcommand help; and __fish_seen_subcommand_from demo" -f -a "peripheral" -d 'A simulated peripheral'
