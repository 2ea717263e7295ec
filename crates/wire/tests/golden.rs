//! Holds every shape to its golden document in `golden/`: key sets, order and nulls are those of recorded conversations between
//! Ironic and ironic-python-agent, the values are made up. Also: what is unknown is kept, ignored or refused as Ironic needs it.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use wire::{
    AgentFault, AgentStatus, ApiFault, CommandList, CommandRequest, CommandResult, CommandStatus, Heartbeat,
    ImageInfo, Inventory, LookupReply, Node, Port, RootDocument, StepKind, StepList, StepMap, V1Document,
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden(name: &str) -> Value {
    let path = folder().join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read<T: DeserializeOwned>(document: &Value) -> T {
    serde_json::from_str(&document.to_string()).unwrap_or_else(|error| panic!("{document}: {error}"))
}

fn rewrite<T: DeserializeOwned + Serialize>(document: &Value) -> Value {
    serde_json::to_value(read::<T>(document)).unwrap()
}

/// A step list is never read as a whole: its parts are.
fn rewrite_steps(document: &Value) -> Value {
    let kind = [StepKind::Clean, StepKind::Deploy, StepKind::Service]
        .into_iter()
        .find(|kind| document.get(format!("{}_steps", kind.name())).is_some())
        .unwrap();
    let steps: StepMap = read(&document[format!("{}_steps", kind.name())]);
    let versions = read(&document["hardware_manager_version"]);
    StepList { kind, steps, versions }.to_value().unwrap()
}

fn rewrite_node(document: &Value) -> Value {
    Value::Object(read::<Node>(document).to_full_map())
}

fn rewrite_port(document: &Value) -> Value {
    Value::Object(read::<Port>(document).to_full_map())
}

fn rewrite_api_fault(document: &Value) -> Value {
    let text = ApiFault::text_of(&document.to_string());
    ApiFault::new(409, text).to_body()
}

#[derive(Clone, Copy)]
enum Keys {
    /// In the order of the document.
    Ordered,
    /// In any order: nobody reads these as a stream.
    Any,
}

type Rewrite = fn(&Value) -> Value;

const TABLE: &[(&str, Rewrite, Keys)] = &[
    ("agent_fault", rewrite::<AgentFault>, Keys::Ordered),
    ("api_fault", rewrite_api_fault, Keys::Ordered),
    ("command_list", rewrite::<CommandList>, Keys::Ordered),
    ("fault_busy", rewrite::<AgentFault>, Keys::Ordered),
    ("fault_envelope", rewrite::<AgentFault>, Keys::Ordered),
    ("fault_not_standalone", rewrite::<AgentFault>, Keys::Ordered),
    ("fault_unauthorized", rewrite::<AgentFault>, Keys::Ordered),
    ("fault_undotted", rewrite::<AgentFault>, Keys::Ordered),
    ("fault_unknown_command", rewrite::<AgentFault>, Keys::Ordered),
    ("fault_unknown_extension", rewrite::<AgentFault>, Keys::Ordered),
    ("fault_unknown_id", rewrite::<AgentFault>, Keys::Ordered),
    ("heartbeat", rewrite::<Heartbeat>, Keys::Ordered),
    ("heartbeat_before_tokens", rewrite::<Heartbeat>, Keys::Ordered),
    ("image_info_partition", rewrite::<ImageInfo>, Keys::Any),
    ("image_info_whole_disk", rewrite::<ImageInfo>, Keys::Ordered),
    ("image_info_with_credentials", rewrite::<ImageInfo>, Keys::Ordered),
    ("inventory", rewrite::<Inventory>, Keys::Ordered),
    ("inventory_of_little", rewrite::<Inventory>, Keys::Ordered),
    ("lookup_reply", rewrite::<LookupReply>, Keys::Any),
    ("node_record", rewrite::<Node>, Keys::Ordered),
    ("node_sent_to_agents", rewrite_node, Keys::Any),
    ("port_record", rewrite::<Port>, Keys::Ordered),
    ("port_sent_to_agents", rewrite_port, Keys::Any),
    ("request_bootc_install", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_bootc_step", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_clean_step", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_collect_system_logs", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_finalize_rescue", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_finalize_rescue_of_old", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_get_clean_steps", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_get_deploy_steps", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_get_hardware_info", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_get_service_steps", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_install_bootloader", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_lockdown", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_partition_uuids", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_power_off", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_prepare_image", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_run_image", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_service_step", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_set_node_info", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_start_flow", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_sync", rewrite::<CommandRequest>, Keys::Ordered),
    ("request_write_image", rewrite::<CommandRequest>, Keys::Ordered),
    ("result_bootc_install", rewrite::<CommandResult>, Keys::Ordered),
    ("result_bootc_refused", rewrite::<CommandResult>, Keys::Ordered),
    ("result_clean_step", rewrite::<CommandResult>, Keys::Ordered),
    ("result_failed", rewrite::<CommandResult>, Keys::Ordered),
    ("result_finalize_rescue", rewrite::<CommandResult>, Keys::Ordered),
    ("result_flow_failed", rewrite::<CommandResult>, Keys::Ordered),
    ("result_flow_unknown_extension", rewrite::<CommandResult>, Keys::Ordered),
    ("result_get_clean_steps", rewrite::<CommandResult>, Keys::Ordered),
    ("result_get_deploy_steps", rewrite::<CommandResult>, Keys::Ordered),
    ("result_get_service_steps", rewrite::<CommandResult>, Keys::Ordered),
    ("result_hardware_info", rewrite::<CommandResult>, Keys::Ordered),
    ("result_install_bootloader", rewrite::<CommandResult>, Keys::Ordered),
    ("result_lockdown", rewrite::<CommandResult>, Keys::Ordered),
    ("result_partition_uuids_partition", rewrite::<CommandResult>, Keys::Ordered),
    ("result_partition_uuids_whole_disk", rewrite::<CommandResult>, Keys::Ordered),
    ("result_power_off", rewrite::<CommandResult>, Keys::Ordered),
    ("result_prepare_image", rewrite::<CommandResult>, Keys::Ordered),
    ("result_run_image", rewrite::<CommandResult>, Keys::Ordered),
    ("result_running", rewrite::<CommandResult>, Keys::Ordered),
    ("result_service_step", rewrite::<CommandResult>, Keys::Ordered),
    ("result_start_flow", rewrite::<CommandResult>, Keys::Ordered),
    ("result_sync", rewrite::<CommandResult>, Keys::Ordered),
    ("result_system_logs", rewrite::<CommandResult>, Keys::Ordered),
    ("result_unexpected_parameter", rewrite::<CommandResult>, Keys::Ordered),
    ("result_version_mismatch", rewrite::<CommandResult>, Keys::Ordered),
    ("result_write_image", rewrite::<CommandResult>, Keys::Ordered),
    ("root_document", rewrite::<RootDocument>, Keys::Ordered),
    ("root_document_of_ferric", rewrite::<RootDocument>, Keys::Ordered),
    ("status", rewrite::<AgentStatus>, Keys::Ordered),
    ("status_before_start", rewrite::<AgentStatus>, Keys::Ordered),
    ("step_list_clean", rewrite_steps, Keys::Ordered),
    ("step_list_deploy", rewrite_steps, Keys::Ordered),
    ("step_list_service", rewrite_steps, Keys::Ordered),
    ("v1_document", rewrite::<V1Document>, Keys::Ordered),
];

#[test]
fn every_golden_document_comes_back_as_it_was() {
    for (name, rewrite, keys) in TABLE {
        let document = golden(name);
        let again = rewrite(&document);
        match keys {
            Keys::Ordered => assert_eq!(again.to_string(), document.to_string(), "{name}"),
            Keys::Any => assert_eq!(again, document, "{name}"),
        }
    }
}

#[test]
fn every_golden_file_is_in_the_table() {
    let files: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let table: BTreeSet<String> = TABLE.iter().map(|(name, _, _)| (*name).to_owned()).collect();
    assert_eq!(files, table);
}

#[test]
fn the_version_documents_are_made_as_ironic_python_agent_makes_them() {
    let root = "https://192.0.2.7:9999";
    assert_eq!(serde_json::to_string(&RootDocument::at(root)).unwrap(), golden("root_document").to_string());
    assert_eq!(serde_json::to_string(&V1Document::at(root)).unwrap(), golden("v1_document").to_string());
}

fn names(map: &Map<String, Value>) -> Vec<&str> {
    map.keys().map(String::as_str).collect()
}

#[test]
fn only_keys_without_a_meaning_here_are_left_over() {
    // A field of a wrong name would still come back unchanged, through `rest`.
    let reply: LookupReply = read(&golden("lookup_reply"));
    assert_eq!(names(&reply.node.rest), ["properties", "instance_info", "driver_internal_info", "links"]);
    assert_eq!(
        names(&reply.config.rest),
        ["metrics", "metrics_statsd", "agent_containers", "tls_cipher_suites"]
    );
    assert!(names(&read::<ImageInfo>(&golden("image_info_whole_disk")).rest.0).is_empty());
    assert!(names(&read::<ImageInfo>(&golden("image_info_with_credentials")).rest.0).is_empty());
    assert_eq!(
        names(&read::<ImageInfo>(&golden("image_info_partition")).rest.0),
        [
            "kernel",
            "ramdisk",
            "root_gb",
            "root_mb",
            "swap_mb",
            "ephemeral_mb",
            "ephemeral_format",
            "preserve_ephemeral",
            "boot_option",
            "disk_label"
        ]
    );
}

fn with_more(name: &str, at: &str) -> Value {
    let mut document = golden(name);
    let place = document.pointer_mut(at).unwrap().as_object_mut().unwrap();
    place.insert("brand_new".into(), json!({"secret": "hush"}));
    document
}

#[test]
fn what_a_newer_ironic_adds_to_lookup_and_image_info_is_kept() {
    for at in ["/node", "/config"] {
        let document = with_more("lookup_reply", at);
        assert_eq!(rewrite::<LookupReply>(&document), document, "{at}");
    }
    let document = with_more("image_info_whole_disk", "");
    assert_eq!(rewrite::<ImageInfo>(&document), document);
    for (name, at) in [
        ("request_write_image", "/params/node"),
        ("request_write_image", "/params/step/args/image_info"),
        ("request_write_image", "/params/ports/0"),
        ("request_clean_step", "/params/step"),
    ] {
        let document = with_more(name, at);
        assert_eq!(rewrite::<CommandRequest>(&document).to_string(), document.to_string(), "{name}{at}");
    }
}

#[test]
fn what_a_newer_peer_adds_elsewhere_is_ignored() {
    assert_eq!(
        rewrite::<CommandRequest>(&with_more("request_write_image", "")),
        golden("request_write_image")
    );
    assert_eq!(rewrite::<CommandResult>(&with_more("result_running", "")), golden("result_running"));
    assert_eq!(
        rewrite::<CommandResult>(&with_more("result_failed", "/command_error")),
        golden("result_failed")
    );
    assert_eq!(rewrite::<AgentStatus>(&with_more("status", "")), golden("status"));
    assert_eq!(rewrite_node(&with_more("node_sent_to_agents", "")), golden("node_sent_to_agents"));
    assert_eq!(rewrite_port(&with_more("port_sent_to_agents", "")), golden("port_sent_to_agents"));
}

#[test]
fn a_heartbeat_refuses_what_it_does_not_know() {
    let error = serde_json::from_value::<Heartbeat>(with_more("heartbeat", "")).unwrap_err().to_string();
    assert!(error.contains("brand_new"), "{error}");
    for key in ["agent_status", "agent_status_message"] {
        let mut document = golden("heartbeat");
        document[key] = "start".into();
        assert!(serde_json::from_value::<Heartbeat>(document).is_err(), "{key}");
    }
}

#[test]
fn a_null_where_ironic_has_nothing_to_say_is_as_good_as_no_key() {
    let mut document = golden("image_info_whole_disk");
    for key in ["checksum", "proxies", "no_proxy", "image_type", "configdrive", "deploy_boot_mode"] {
        document[key] = Value::Null;
    }
    assert_eq!(rewrite::<ImageInfo>(&document), golden("image_info_whole_disk"));
    let mut document = golden("lookup_reply");
    document["config"]["agent_token"] = Value::Null; // below version 1.62
    assert!(read::<LookupReply>(&document).config.agent_token.is_none());
}

#[test]
fn both_texts_of_a_version_mismatch_are_read_and_the_old_one_is_written() {
    let newer: CommandStatus = serde_json::from_value("VERSION_MISMATCH".into()).unwrap();
    assert_eq!(newer, CommandStatus::VersionMismatch);
    assert_eq!(serde_json::to_value(newer).unwrap(), "CLEAN_VERSION_MISMATCH");
}

#[test]
fn unknown_keys_of_an_image_do_not_show_their_values_in_logs() {
    let image: ImageInfo = read(&with_more("image_info_with_credentials", ""));
    let text = format!("{image:?}");
    assert!(text.contains("brand_new"), "{text}");
    for hidden in ["hush", "QmVhcmVyIGV4YW1wbGU=", "\"example\""] {
        assert!(!text.contains(hidden), "{text}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Binary fractions: serde_json may be off by one in the last of 17 digits, which matters to nobody.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((".{0,8}", inner), 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// A golden document with values anywhere in it replaced or removed: closer to the parsers' branches than noise.
fn bent(name: &'static str) -> impl Strategy<Value = Value> {
    let count = places(&golden(name), String::new()).len();
    prop::collection::vec((0..count, prop::option::of(any_json())), 1..4).prop_map(move |changes| {
        let mut document = golden(name);
        let all = places(&document, String::new());
        for (index, change) in changes {
            match change {
                Some(value) => {
                    if let Some(place) = document.pointer_mut(&all[index]) {
                        *place = value;
                    }
                }
                None => {
                    let Some((parent, key)) = all[index].rsplit_once('/') else { continue };
                    if let Some(Value::Object(map)) = document.pointer_mut(parent) {
                        map.shift_remove(key);
                    }
                }
            }
        }
        document
    })
}

/// The pointers to everything in a document. Golden keys hold neither `/` nor `~`.
fn places(value: &Value, at: String) -> Vec<String> {
    let below: Vec<String> = match value {
        Value::Object(map) => {
            map.iter().flat_map(|(key, value)| places(value, format!("{at}/{key}"))).collect()
        }
        Value::Array(list) => list
            .iter()
            .enumerate()
            .flat_map(|(index, value)| places(value, format!("{at}/{index}")))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    std::iter::once(at).chain(below).collect()
}

/// What can be read can be written, and read again to the same; what can not gives an error.
fn settles<T: DeserializeOwned + Serialize>(document: &Value) -> Result<(), TestCaseError> {
    if let Ok(first) = serde_json::from_str::<T>(&document.to_string()) {
        let once = serde_json::to_string(&first).unwrap();
        let again: T = serde_json::from_str(&once).unwrap();
        prop_assert_eq!(serde_json::to_string(&again).unwrap(), once);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_is_read_or_refused(document in any_json()) {
        settles::<LookupReply>(&document)?;
        settles::<ImageInfo>(&document)?;
        settles::<CommandRequest>(&document)?;
        settles::<CommandResult>(&document)?;
        settles::<Heartbeat>(&document)?;
        settles::<Node>(&document)?;
        ApiFault::text_of(&document.to_string());
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,64}") {
        let _ = serde_json::from_str::<LookupReply>(&text);
        let _ = serde_json::from_str::<ImageInfo>(&text);
        let _ = serde_json::from_str::<CommandRequest>(&text);
        ApiFault::text_of(&text);
    }

    #[test]
    fn bent_lookup_replies_are_read_or_refused(document in bent("lookup_reply")) {
        settles::<LookupReply>(&document)?;
    }

    #[test]
    fn bent_images_are_read_or_refused(document in bent("image_info_partition")) {
        settles::<ImageInfo>(&document)?;
    }

    #[test]
    fn bent_requests_are_read_or_refused(document in bent("request_write_image")) {
        settles::<CommandRequest>(&document)?;
    }

    #[test]
    fn bent_nodes_are_read_or_refused(document in bent("node_sent_to_agents")) {
        settles::<Node>(&document)?;
        if let Ok(node) = serde_json::from_value::<Node>(document) {
            prop_assert_eq!(node.to_full_map().len(), golden("node_sent_to_agents").as_object().unwrap().len());
        }
    }
}
