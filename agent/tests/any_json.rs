//! Whatever is asked with whatever parameters: no panic, a status of the protocol, and a history that stays readable.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use events::Events;
use ferric_agent::command::{Command, Executor};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use wire::{CommandList, CommandRequest, CommandResult, CommandStatus};

const KEYS: [&str; 22] = [
    "image_info",
    "configdrive",
    "step",
    "node",
    "ports",
    "root_uuid",
    "target_boot_mode",
    "efi_system_part_uuid",
    "clean_version",
    "deploy_version",
    "service_version",
    "flow",
    "rescue_password",
    "hashed",
    "node_info",
    "image_source",
    "instance_info",
    "pull_secret",
    "ignore_bootloader_failure",
    "prep_boot_part_uuid",
    "other",
    "",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec!["panic", "foreign", "$6$a$b", "oci://h/p", "http://h/i"])
            .prop_map(Value::from),
    ];
    let key = prop_oneof![
        any::<String>(),
        prop::sample::select(vec![
            "uuid",
            "step",
            "args",
            "id",
            "urls",
            "checksum",
            "standby.sync",
            "clean.get_clean_steps",
            "flow.start_flow",
            "nosuch.x",
            "instance_info",
            "configdrive"
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// What a well-meaning conductor sends, so that commands are reached and not only refused.
fn plausible(key: &str) -> Value {
    match key {
        "node" => json!({"uuid": "u", "instance_info": {"configdrive": "x"}}),
        "ports" => json!([]),
        "step" => json!({"step": "s", "interface": "deploy", "args": {"a": 1}}),
        "image_info" => json!({"id": "i", "urls": ["http://h/i"], "checksum": "c"}),
        "flow" => json!([{"standby.sync": {}}, {"image.install_bootloader": {"root_uuid": null}}]),
        "hashed" => json!(true),
        "rescue_password" => json!("$6$a$b"),
        "image_source" => json!("oci://h/p"),
        _ => Value::Null,
    }
}

fn any_request() -> impl Strategy<Value = CommandRequest> {
    let names: Vec<String> = Command::names().collect();
    let name = prop_oneof![
        8 => prop::sample::select(names),
        1 => any::<String>(),
        1 => any::<String>().prop_map(|text| format!("clean.{text}")),
    ];
    let value = prop_oneof![any_json().prop_map(Some), Just(None)];
    let params = prop::collection::vec((prop::sample::select(KEYS.to_vec()), value), 0..6);
    (name, params).prop_map(|(name, values)| {
        let params: Map<String, Value> = values
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.unwrap_or_else(|| plausible(key))))
            .collect();
        CommandRequest { name, params }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_requests_leaves_a_readable_history(requests in prop::collection::vec(any_request(), 1..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let root = tempfile::tempdir().unwrap();
        let executor = Executor::new(Arc::new(support::extensions(root.path())), Events::default(), || {});
        runtime.block_on(async {
            let mut known = Vec::new();
            for request in requests {
                let shown = format!("{} {}", request.name, Value::Object(request.params.clone()));
                match executor.begin(request).await {
                    Err(fault) => {
                        prop_assert!([400, 404].contains(&fault.status), "{}: {:?}", shown, fault);
                        prop_assert!(!fault.text.contains("agent_token"));
                    }
                    Ok(begun) => {
                        let record = executor.finished(begun).await;
                        let result: CommandResult = serde_json::from_slice(&record.json().to_vec()).unwrap();
                        prop_assert!(result.command_status.is_finished());
                        prop_assert_eq!(result.command_error.is_some(), result.command_status != CommandStatus::Succeeded);
                        prop_assert!(!matches!(result.command_result, Some(Value::String(_))), "{}", shown);
                        known.push(result);
                    }
                }
                let list: CommandList = serde_json::from_slice(&executor.list().to_vec()).unwrap();
                prop_assert_eq!(&list.commands, &known, "{}", shown);
            }
            Ok(())
        })?;
    }
}
