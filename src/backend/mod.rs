//! The back end's half: what sends commands to devices, and learns what became of them.

pub mod entra;
