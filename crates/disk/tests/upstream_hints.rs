//! Root device hints beside ironic-python-agent: what it said of some 600 hints, recorded by `hints/record.py`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

use disk::Hints;
use serde_json::{Value, json};
use wire::Disk;

/// What Ferric says otherwise, on purpose; each must be a question of the record, and differ.
const BETTER: [(&str, Option<&str>); 5] = [
    // Documented by Ironic and refused by its agent.
    (r#"{"size": "<range-in> [ 5 15 ]"}"#, Some("AC")),
    // Its agent looks at the first part alone.
    (r#"{"model": "<in> bar <in> x"}"#, Some("")),
    // Its agent looks for the part in `foo%20bar%20123`.
    (r#"{"model": "<in> 20"}"#, Some("")),
    // Never matches there: said before the disks are looked at.
    (r#"{"size": "s== 20"}"#, None),
    // The older name of the same place.
    (r#"{"by_path": "/dev/disk/by-path/pci-0000:00:1f.2-ata-2"}"#, Some("A")),
];

fn device(value: &Value) -> Disk {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let first =
        |key: &str| value[key].as_array().unwrap().iter().find_map(|name| name.as_str().map(str::to_owned));
    Disk {
        name: text("name").unwrap(),
        size: value["size"].as_u64().unwrap(),
        model: text("model"),
        vendor: text("vendor"),
        serial: first("serial"),
        wwn: first("wwn"),
        wwn_with_extension: text("wwn_with_extension"),
        wwn_vendor_extension: text("wwn_vendor_extension"),
        rotational: value["rotational"].as_bool().unwrap(),
        hctl: text("hctl"),
        by_path: text("by_path"),
        tran: text("tran"),
        ..Disk::default()
    }
}

/// The letters of the devices that match; none for hints that are refused.
fn ours(hints: &Value, devices: &[(String, Disk)]) -> Option<String> {
    let hints = Hints::parse(hints).ok()?;
    let matched = devices.iter().filter(|(_, disk)| hints.matches(disk));
    Some(matched.map(|(letter, _)| letter.as_str()).collect())
}

/// An operator for numbers before text: its agent fails, or, for serial numbers and world-wide names, matches nothing.
fn compares_text_as_numbers(hints: &Value) -> bool {
    let hints = hints.as_object().unwrap();
    hints.iter().any(|(name, value)| {
        let text = value.as_str().unwrap_or_default();
        name != "size" && ["== ", "> "].iter().any(|operator| text.starts_with(operator))
    })
}

#[test]
fn hints_are_judged_as_ironic_python_agent_judges_them() {
    let record: Value = serde_json::from_str(include_str!("hints/upstream.json")).unwrap();
    let devices: Vec<(String, Disk)> = record["devices"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(letter, value)| (letter.clone(), device(value)))
        .collect();
    let vectors = record["vectors"].as_array().unwrap();
    assert!(vectors.len() > 500 && devices.len() == 3);
    let mut wrong = Vec::new();
    for vector in vectors {
        let hints = &vector["hints"];
        let theirs = vector["matches"].as_str().map(str::to_owned);
        let better = BETTER.iter().find(|(ours, _)| serde_json::from_str::<Value>(ours).unwrap() == *hints);
        let expected = match better {
            Some((_, expected)) => expected.map(str::to_owned),
            None if compares_text_as_numbers(hints) => None,
            None => theirs,
        };
        let found = ours(hints, &devices);
        if found != expected {
            wrong.push(format!("{hints}: {found:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}

#[test]
fn every_deliberate_difference_is_in_the_record() {
    let record: Value = serde_json::from_str(include_str!("hints/upstream.json")).unwrap();
    for (hints, expected) in BETTER {
        let hints: Value = serde_json::from_str(hints).unwrap();
        let vectors = record["vectors"].as_array().unwrap();
        let vector = vectors.iter().find(|vector| vector["hints"] == hints).unwrap();
        assert_ne!(vector["matches"].as_str(), expected, "{hints}");
    }
    assert_eq!(record["devices"]["A"]["serial"], json!(["ABC", "ABC", "Foo_Bar_123_ABC"]));
}
