//! The page that operators read names every option there is.
#![allow(clippy::unwrap_used)]

use ferric_agent::config::Config;

#[test]
fn every_option_and_kernel_parameter_is_documented() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/agent.md");
    let page = std::fs::read_to_string(page).unwrap();
    for row in Config::default().rows() {
        let (name, kernel) = (row.option.name, row.option.kernel);
        let parameter = kernel.map(|kernel| format!("`{kernel}`")).unwrap_or_default();
        let default = if matches!(row.value.as_str(), "" | "-") { "" } else { &format!("`{}`", row.value) };
        let line = format!("| `{name}` | {parameter} | {default} |");
        assert!(page.contains(&line), "docs/agent.md lacks the row {line}");
        let why = row.option.without_effect.map(|reason| format!("*Changes nothing:* {reason}"));
        assert!(
            why.is_none_or(|why| page.contains(&why)),
            "docs/agent.md does not say why {name} changes nothing"
        );
    }
}
