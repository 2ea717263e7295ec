//! `ferric-agent`: the agent with the built-in hardware managers.

use std::process::ExitCode;

/// musl's allocator is several times slower under the churn of JSON and HTTP.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ferric_agent::main(Vec::new())
}
