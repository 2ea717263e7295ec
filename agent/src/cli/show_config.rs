//! `ferric-agent config`: every option with its value and where it came from. Secrets are hidden.

use std::io::Write;

use sys::Host;

use super::{Exit, Options};

pub(super) fn show(host: &Host, options: &Options) -> Exit {
    let (config, warnings) = match options.load(host) {
        Ok(loaded) => loaded,
        Err(error) => {
            super::run::complain(&error);
            return Exit::Usage;
        }
    };
    let mut stderr = std::io::stderr().lock();
    for warning in warnings {
        let _ = writeln!(stderr, "warning: {warning}"); // nowhere left to complain
    }
    let mut text = String::new();
    for row in config.rows() {
        text.push_str(&format!("{} = {}  # {}\n", row.option.full_name(), row.value, row.origin));
    }
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Exit::Success,
        Err(_) => Exit::Failure, // a closed pipe
    }
}
