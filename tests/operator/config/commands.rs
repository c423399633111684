//! What can be wrong in a command with names for its values, with a function that writes, and with several steps.

use super::wrong::{Bench, Case};

const NAMES: &[Case] = &[
    ("write = { register = 40001 }\nidempotent = true\nvalues = { a = 70000 }", ".values", "can't be carried out"),
    ("write = { register = 40001 }\nidempotent = true\nvalues = { a = 'b' }", ".values", "must stand for"),
    ("write = { register = 40001 }\nidempotent = true\nvalues = { a = 1 }\nvalue = 'b'", ".value", "expected one of"),
    ("write = { register = 40001 }\nidempotent = true\nuntil = 'a'", ".until", "belongs to a send"),
    ("read = { register = 40001 }\nvalues = 1", ".values", "expected a table"),
    ("read = { register = 40001 }\nvalues = {}", ".values", "is empty"),
    ("read = { register = 40001 }\nvalues = { a = 70000 }", ".values", "\"a\" is never read: expected a number from 0"),
    ("read = { register = 40001, count = 2 }\nvalues = { a = -1 }", ".values", "is never read"),
    ("read = { register = 1 }\nvalues = { a = 2 }", ".values", "is never read: expected true or false"),
    (
        "write = { register = 40001, scale = 0.1 }\nidempotent = true\nvalues = { half = 0.55 }",
        ".values",
        "\"half\" stands for 0.55, and the nearest that the point's type and scale hold is 0.6",
    ),
    ("write = { register = 40001, count = 2 }\nidempotent = true\nvalues = { a = 70000 }", ".values", "carried out"),
    (
        "write = { register = 40001 }\nidempotent = true\nrange = [0, 1]\nvalues = { off = 0, full = 2 }",
        ".values",
        "\"full\" can't be carried out: expected a number from 0 to 1",
    ),
    (
        "write = { register = 40001, type = 'string', count = 2 }\nidempotent = true\nvalues = { a = 1 }",
        ".values",
        "hold a text",
    ),
];

#[test]
fn the_names_of_values_are_checked() {
    let bench = Bench::new();
    bench.each_makes_one_problem("profile.pump.command.c", NAMES);
}

const DESIRED: &[Case] = &[
    ("write = { register = 40001 }\nidempotent = false\ndesired = 'speed'", ".desired", "must not be repeated"),
    ("write = { register = 40001 }\nidempotent = true\ndesired = 'fieldbridge'", ".desired", "tells of itself"),
    ("write = { register = 40001 }\nidempotent = true\ndesired = ''", ".desired", "is empty"),
    ("write = { register = 40001 }\nidempotent = true\ndesired = 'a.b'", ".desired", "must be 1 to 64 letters"),
    ("write = { register = 40001 }\nidempotent = true\ndesired = 'a b'", ".desired", "must be 1 to 64 letters"),
    ("write = { register = 40001 }\nidempotent = true\ndesired = 5", ".desired", "write text, in quotes"),
    ("write = { register = 40001 }\nvalue = 5\nidempotent = true\ndesired = 'a'", ".desired", "takes none"),
    ("read = { register = 40001 }\ndesired = 'speed'", ".desired", "takes none"),
    (
        "steps = [{ write = { register = 40001 }, value = 1 }]\nidempotent = true\ndesired = 'a'",
        ".desired",
        "a command of several steps can't be desired",
    ),
    ("read = { register = 40001 }\nsetpoint = 'speed'", ".setpoint", "did you mean \"desired\"?"),
];

#[test]
fn a_desired_property_is_checked() {
    let bench = Bench::new();
    bench.each_makes_one_problem("profile.pump.command.c", DESIRED);
    let set = "write = { register = 40001 }\nidempotent = true\ndesired = 'speed'";
    let twice = format!("[profile.pump.command.c]\n{set}\n[profile.pump.command.d]\n{set}");
    bench.makes_one_problem(&twice, "profile.pump.command.d.desired", "is set by command \"c\" already");
}

const FUNCTION: &[Case] = &[
    ("read = { register = 40001 }\nfunction = 3", ".function", "belongs to a write"),
    ("write = { register = 40001 }\nfunction = 3\nidempotent = true", ".function", "3 reads, and this command writes"),
    ("write = { register = 40001 }\nfunction = 5\nidempotent = true", ".function", "5 writes coils"),
    ("write = { register = 1 }\nfunction = 16\nidempotent = true", ".function", "write 5 or 15"),
    ("write = { register = 1, count = 3 }\nfunction = 5\nidempotent = true", ".function", "write 15, or leave it out"),
    (
        "write = { register = 40001, type = 'f32' }\nfunction = 6\nidempotent = true",
        ".function",
        "6 writes one of the holding registers, and this command writes 2; write 16, or leave it out",
    ),
    ("write = { register = 40001 }\nfunction = 21\nidempotent = true", ".function", "not one of those that write"),
    (
        "write = { register = 40001 }\nfunction = 23\nidempotent = true",
        ".function",
        "23 reads back what it writes, and this command is not read back; add verify = true or read_back",
    ),
    ("write = { register = 1 }\nfunction = 23\nverify = true\nidempotent = true", ".function", "23 writes holding"),
    (
        "write = { register = 40001 }\nfunction = 23\nread_back = { table = 'input' }\nidempotent = true",
        ".function",
        "23 reads back holding registers, and read_back is of another table; leave function out",
    ),
    (
        "write = { register = 40001, count = 122 }\nfunction = 23\nverify = true\nidempotent = true",
        ".function",
        "23 writes at most 121 registers, and this command writes 122; write 16",
    ),
    (
        "write = { register = 40001 }\nfunction = 23\nread_back = { after = '1s' }\nidempotent = true",
        ".function",
        "looks no sooner than after",
    ),
    (
        "write = { register = 40001, scale_register = { address = 9 } }\nfunction = 23\nverify = true\nidempotent = true",
        ".function",
        "a scale register is read in another",
    ),
    ("write = { register = 40001 }\nfunction = 22\nidempotent = true", ".function", "say which bit, such as bit = 0"),
    ("write = { register = 1 }\nfunction = 22\nidempotent = true", ".function", "write 5 or 15"),
    ("write = { register = 40001, bit = 1 }\nfunction = 5\nidempotent = true", ".function", "write 6, 16, 22 or 23"),
    ("write = { register = 40001 }\nfunction = 128\nidempotent = true", ".function", "it must be 1 to 127"),
    ("write = { register = 40001 }\nfc = 16\nidempotent = true", ".fc", "did you mean \"function\"?"),
];

const STEPS: &[Case] = &[
    ("steps = 1", ".steps", "a list of tables"),
    ("steps = [1]", ".steps", "something else than tables"),
    ("steps = []", ".steps", "holds 0 writes, and a command has 1 to 16 of them"),
    ("steps = [{ value = 1 }]", ".steps[1]", "writes nothing"),
    ("steps = [{ write = { register = 40001 }, timeout = '1s' }]", ".steps[1].timeout", "unknown key"),
    ("steps = [{ write = { register = 40001 } }]\nvalue = 1", ".value", "in the step that it is of"),
    ("steps = [{ write = { register = 40001 } }]\nverify = true", ".verify", "in the step that it is of"),
    ("steps = [{ write = { register = 40001 } }]\nwrite = { register = 40001 }", ".steps", "beside write"),
    ("steps = [{ write = { register = 40001 } }]\nidempotent = 'no'", ".idempotent", "expected true or false"),
    (
        "steps = [{ write = { register = 40001 } }, { write = { register = 40002 }, value = 1 }, { write = { register = 40003 } }]",
        ".steps",
        "steps 1 and 3 have no value",
    ),
    (
        "steps = [{ write = { register = 40001 }, value = 1 }, { write = { register = 30001 } }]",
        ".steps[2].write.register",
        "input registers can only be read",
    ),
    ("steps = [{ write = { register = 40001 }, value = 65536 }]", ".steps[1].value", "from 0 to 65535"),
    ("steps = [{ write = { register = 40001 }, range = [0, 70000] }]", ".steps[1].range", "hold 0 to 65535"),
    ("steps = [{ write = { register = 40001 }, value = 1, function = 5 }]", ".steps[1].function", "5 writes coils"),
    (
        "steps = [{ write = { register = 40001 }, value = 1, verify = true }, { write = { register = 40001 }, value = 0 }]",
        ".steps[1].verify",
        "looks at what step 2 writes",
    ),
    (
        "steps = [{ write = { register = 40001, bit = 1 }, value = 1, read_back = { bit = 2 } }, \
         { write = { register = 40001, bit = 2 }, value = 0 }]",
        ".steps[1].read_back",
        "read back the last step that writes there",
    ),
];

#[test]
fn steps_are_checked() {
    let bench = Bench::new();
    bench.each_makes_one_problem("profile.pump.command.c", STEPS);
    let many =
        format!("[profile.pump.command.c]\nsteps = [{}]", "{ write = { register = 40001 }, value = 1 },".repeat(17));
    bench.makes_one_problem(&many, "profile.pump.command.c.steps", "holds 17 writes, and a command has 1 to 16");
}

#[test]
fn the_function_that_writes_must_fit_what_is_written() {
    let bench = Bench::new();
    bench.each_makes_one_problem("profile.pump.command.c", FUNCTION);
}
