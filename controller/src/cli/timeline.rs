//! The timeline of a deployment, as a table.

use serde_json::Value;

use super::client::{Client, segment};
use super::{Exit, Failure};
use crate::printable;
use crate::store::Mark;

/// `ferric timeline NODE`.
pub async fn run(client: &Client, node: &str) -> Result<Exit, Failure> {
    let reply: Value = client.get(&format!("/ferric/v1/nodes/{}/timeline", segment(node))).await?;
    let marks: Vec<Mark> =
        reply.get("timeline").and_then(|list| serde_json::from_value(list.clone()).ok()).unwrap_or_default();
    if client.json {
        println!("{}", printable::json(&marks));
    } else if marks.is_empty() {
        eprintln!("node {node} was not deployed yet");
    } else {
        print!("{}", table(&marks));
    }
    Ok(Exit::Success)
}

/// One line a mark: seconds since power on, and since the mark before.
pub fn table(marks: &[Mark]) -> String {
    let width = marks.iter().map(|mark| mark.mark.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut before: Option<f64> = None;
    for mark in marks {
        let since = mark.seconds.map_or_else(|| "       -".into(), |s| format!("{s:8.1}"));
        let step =
            before.map_or_else(String::new, |before| format!("  (+{:.1})", (mark.at - before).max(0.0)));
        text += &format!("{since} s  {:width$}{step}\n", printable::line(&mark.mark));
        before = Some(mark.at);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_counts_from_power_on() {
        let mark = |name: &str, at: f64, seconds| Mark { mark: name.into(), at, seconds };
        let text = table(&[mark("power on", 100.0, Some(0.0)), mark("first byte", 112.34, Some(12.34))]);
        assert_eq!(text, "     0.0 s  power on  \n    12.3 s  first byte  (+12.3)\n");
    }
}
