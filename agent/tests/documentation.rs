//! The page that operators read names every option there is.
#![allow(clippy::unwrap_used)]

use ferric_agent::config::OPTIONS;

#[test]
fn every_option_and_kernel_parameter_is_documented() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/agent.md");
    let page = std::fs::read_to_string(page).unwrap();
    for option in OPTIONS {
        let parameter = option.kernel.map(|kernel| format!("`{kernel}`")).unwrap_or_default();
        let row = format!("| `{}` | {parameter} |", option.name);
        assert!(page.contains(&row), "docs/agent.md lacks the row {row}");
    }
}
