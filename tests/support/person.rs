//! A person at a terminal, for tests of what is asked and shown there.

/// Answers each prompt on a terminal of its own, prints all that the terminal has shown, and ends as the program did.
/// The answer ^C is the key.
const PERSON: &str = r#"
import fcntl, os, pty, re, select, signal, struct, sys, termios
signal.alarm(120)
told = (b"FAIL", b"ok", b"warning", b"note")
answers = sys.argv[1].split("|") if sys.argv[1] else []
pid, terminal = pty.fork()
if pid == 0:
    # Whoever runs this in the background ignores it, and that is inherited.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, int(sys.argv[2]), 0, 0))
    os.execv(sys.argv[3], sys.argv[3:])
shown = b""
while True:
    try:
        piece = os.read(terminal, 4096)
    except OSError:
        break
    if not piece:
        break
    shown += piece
    # What is told has colons, too, and may come in pieces; and colours.
    line = re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", shown.rsplit(b"\n", 1)[-1])
    asked = shown.endswith(b": ") and not line.startswith(told)
    if asked and answers and not select.select([terminal], [], [], 0.1)[0]:
        answer = answers.pop(0)
        os.write(terminal, b"\x03" if answer == "^C" else answer.encode() + b"\n")
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

/// What Python is called with, for a person who gives these answers, with `|` between them, at a terminal of so many
/// columns, which with 0 nobody knows; the program and its arguments follow.
pub fn answering(answers: &str, columns: usize) -> [String; 4] {
    ["-c".into(), PERSON.into(), answers.into(), columns.to_string()]
}
