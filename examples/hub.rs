//! The hub simulator as a process: `cargo run --example hub -- --help`.

use clap::Parser;
use fieldbridge::demo::hub::cli::{run, HubArgs};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: HubArgs,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    run(Cli::parse().args).await
}
