use reqwest::Method;
use reqwest::header::{CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use serde_json::{Value, json};
use wire::{Microversion, ProvisionState};

use crate::power::BootMode;
use crate::testing::{Bench, FakeAgent, MAC, Reply};

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_document_has_ironics_shape() {
    let bench = Bench::new(BootMode::Uefi).await;
    let reply = bench.call(Method::GET, "/", None, None).await;
    assert_eq!(reply.status, 200);
    let version = json!({
        "id": "v1", "links": [{ "href": format!("{}/v1/", bench.url), "rel": "self" }], "status": "CURRENT",
        "min_version": "1.1", "version": "1.68",
    });
    assert_eq!(keys(&reply.body), ["default_version", "description", "name", "versions"]);
    assert_eq!(reply.body["default_version"], version);
    assert_eq!(reply.body["versions"], json!([version]));
    assert_eq!(reply.header("X-OpenStack-Ironic-API-Minimum-Version"), "1.1");
    assert_eq!(reply.header("X-OpenStack-Ironic-API-Maximum-Version"), "1.68");
    assert_eq!(reply.header(Microversion::HEADER), "1.1");
    let v1 = bench.call(Method::GET, "/v1/", Some("latest"), None).await;
    assert_eq!((v1.status, v1.header(Microversion::HEADER)), (200, "1.68"));
    assert_eq!(v1.body["id"], "v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_beyond_ours_and_nonsense_are_406() {
    let bench = Bench::new(BootMode::Uefi).await;
    for version in ["1.69", "2.0", "1.0", "x", ""] {
        let reply = bench.call(Method::GET, "/v1/nodes", Some(version), None).await;
        assert_eq!(reply.status, 406, "{version}");
        assert!(!reply.fault().is_empty());
        assert_eq!(reply.header("X-OpenStack-Ironic-API-Maximum-Version"), "1.68");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lookup_answers_as_ironic_does() {
    let bench = Bench::new(BootMode::Uefi).await;
    let uuid = bench.available().await;
    let lookup = async |query: &str, version: Option<&str>| {
        bench.call(Method::GET, &format!("/v1/lookup{query}"), version, None).await
    };
    // Known, but nothing is being done to it.
    assert_eq!(lookup(&format!("?addresses={MAC}"), Some("1.62")).await.status, 404);
    bench
        .controller
        .store
        .update(&uuid, |record| {
            record.node.provision_state = ProvisionState::WaitCallback;
            record.node.instance_info.insert("configdrive".into(), "secret".into());
            Ok(())
        })
        .await
        .unwrap();
    for (query, version, status) in [
        ("", Some("1.62"), 400),
        ("?addresses=", Some("1.62"), 400),
        ("?addresses=nonsense", Some("1.62"), 400),
        ("?addresses=52:54:00:00:00:99", Some("1.62"), 404),
        ("?addresses=52:54:00:aa:bb:01&x=1", Some("1.62"), 400),
        ("?addresses=&node_uuid=nonsense", Some("1.62"), 400),
        ("?addresses=52:54:00:aa:bb:01", None, 404),
        ("?addresses=52:54:00:aa:bb:01", Some("1.21"), 404),
    ] {
        let reply = lookup(query, version).await;
        assert_eq!(reply.status, status, "{query} {version:?}: {}", reply.text);
        assert!(!reply.fault().is_empty());
    }
    // An old client gets no token, before and after there is one.
    assert_eq!(
        lookup(&format!("?addresses={MAC}"), Some("1.61")).await.body["config"].get("agent_token"),
        None
    );
    let several = "?addresses=nonsense%2C52%3A54%3A00%3A00%3A00%3A99%2C52%3A54%3A00%3AAA%3ABB%3A01";
    let first = lookup(several, Some("1.62")).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let token = first.body["config"]["agent_token"].as_str().unwrap();
    assert_eq!(token.len(), 43);
    assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
    assert_eq!(keys(&first.body), ["config", "node"]);
    assert_eq!(
        keys(&first.body["node"]),
        ["driver_internal_info", "instance_info", "links", "properties", "uuid"]
    );
    assert_eq!(
        keys(&first.body["config"]),
        [
            "agent_containers",
            "agent_md5_checksum_enable",
            "agent_skip_bmc_detect",
            "agent_token",
            "agent_token_required",
            "disable_deep_image_inspection",
            "enable_bios_bootloader_install",
            "heartbeat_timeout",
            "metrics",
            "metrics_statsd",
            "permitted_image_formats",
            "tls_cipher_suites",
            "tls_min_version",
        ]
    );
    assert_eq!(first.body["node"]["uuid"], uuid);
    assert_eq!(first.body["node"]["instance_info"]["configdrive"], "******");
    assert_eq!(first.body["node"]["driver_internal_info"]["agent_secret_token"], "******");
    assert_eq!(first.body["config"]["heartbeat_timeout"], 60);
    // By UUID the addresses do not matter; and nobody gets a token twice.
    let second = lookup(&format!("?addresses=&node_uuid={uuid}"), Some("1.62")).await;
    assert_eq!(second.body["config"]["agent_token"], "******");
    assert_eq!(
        lookup(&format!("?addresses={MAC}"), Some("1.61")).await.body["config"].get("agent_token"),
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_checked_in_ironics_order() {
    let bench = Bench::new(BootMode::Uefi).await;
    let uuid = bench.deploy().await;
    let agent = FakeAgent::boot(&bench).await;
    let beat = async |version: Option<&str>, node: &str, change: Value| -> Reply {
        let mut body = agent.body();
        for (key, value) in change.as_object().unwrap() {
            match value {
                Value::String(text) if text == "REMOVED" => drop(body.as_object_mut().unwrap().remove(key)),
                value => body[key] = value.clone(),
            }
        }
        bench.call(Method::POST, &format!("/v1/heartbeat/{node}"), version, Some(body)).await
    };
    let nobody = "11111111-1111-1111-1111-111111111111";
    let last = Some("1.68");
    for (version, node, change, status, word) in [
        (Some("1.69"), nobody, json!({"bad": 1}), 406, "not supported"),
        (Some("nonsense"), nobody, json!({}), 406, "Invalid value"),
        (None, nobody, json!({"unknown_key": "x"}), 400, "Invalid heartbeat"),
        (last, nobody, json!({"callback_url": "REMOVED"}), 400, "callback_url is mandatory"),
        (last, nobody, json!({"callback_url": 5}), 400, "Invalid heartbeat"),
        (last, nobody, json!({"agent_status": "start"}), 400, "Invalid heartbeat"),
        (None, nobody, json!({}), 404, "could not be found"),
        (Some("1.21"), nobody, json!({}), 404, "could not be found"),
        (Some("1.35"), nobody, json!({}), 400, "agent_version"),
        (Some("1.67"), nobody, json!({}), 400, "agent_verify_ca"),
        (last, nobody, json!({"callback_url": "gopher://x"}), 404, nobody),
        (last, &uuid, json!({"callback_url": "gopher://x"}), 400, "callback_url"),
        (last, &uuid, json!({"agent_token": "REMOVED"}), 400, "Agent token is required"),
        (last, &uuid, json!({"agent_version": "REMOVED"}), 400, "Agent version is required"),
        (last, &uuid, json!({"agent_version": null}), 400, "Agent version is required"),
        (last, &uuid, json!({"agent_token": "wrong"}), 400, "Invalid or missing agent token received."),
        (
            last,
            &uuid,
            json!({"agent_token": "wrong", "callback_url": "http://x"}),
            400,
            "Invalid or missing agent token",
        ),
        (
            last,
            &uuid,
            json!({"callback_url": "http://127.0.0.1:9999"}),
            400,
            "TLS is required by configuration",
        ),
    ] {
        let reply = beat(version, node, change.clone()).await;
        assert_eq!(reply.status, status, "{change}: {}", reply.text);
        assert!(reply.fault().contains(word), "{change}: {}", reply.fault());
    }
    let good = beat(last, &uuid, json!({})).await;
    assert_eq!((good.status, good.text.as_str()), (202, ""));
    // From here on URL and certificate are fixed for this boot.
    let moved =
        beat(last, &uuid, json!({"callback_url": "https://127.0.0.1:1", "agent_token": "wrong"})).await;
    assert_eq!(
        (moved.status, moved.fault().as_str()),
        (400, r#"Detected change in ramdisk provided "callback_url""#)
    );
    let other = beat(last, &uuid, json!({"agent_verify_ca": "-----BEGIN CERTIFICATE-----"})).await;
    assert_eq!(
        (other.status, other.fault().as_str()),
        (400, r#"Detected change in ramdisk provided "agent_verify_ca""#)
    );
    let trimmed = format!("{}\n\n", agent.certificate.trim());
    assert_eq!(beat(last, &uuid, json!({"agent_verify_ca": trimmed})).await.status, 202);
    // Not as JSON: as if it were not there.
    let plain =
        bench.http.post(format!("{}/v1/heartbeat/{uuid}", bench.url)).header(Microversion::HEADER, "1.68");
    assert_eq!(plain.body(agent.body().to_string()).send().await.unwrap().status(), 400);
    let node = bench.get("/v1/nodes/demo").await;
    assert!(!node.text.contains(&agent.token), "the token shows in the node");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_have_ironics_fields_and_show_no_secrets() {
    let bench = Bench::new(BootMode::Uefi).await;
    let body = json!({ "name": "n1", "driver": "fake", "driver_info": { "ipmi_password": "hush", "x": 1 }, "extra": {"a": 1} });
    let created = bench.call(Method::POST, "/v1/nodes", Some("1.68"), Some(body)).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let uuid = created.body["uuid"].as_str().unwrap().to_owned();
    assert_eq!(created.header("Location"), format!("{}/v1/nodes/{uuid}", bench.url));
    for key in [
        "allocation_uuid",
        "automated_clean",
        "bios_interface",
        "boot_interface",
        "chassis_uuid",
        "clean_step",
        "conductor",
        "conductor_group",
        "console_enabled",
        "console_interface",
        "created_at",
        "deploy_interface",
        "deploy_step",
        "description",
        "driver",
        "driver_info",
        "driver_internal_info",
        "extra",
        "fault",
        "inspect_interface",
        "inspection_finished_at",
        "inspection_started_at",
        "instance_info",
        "instance_uuid",
        "last_error",
        "lessee",
        "links",
        "maintenance",
        "maintenance_reason",
        "management_interface",
        "name",
        "network_data",
        "network_interface",
        "owner",
        "ports",
        "power_interface",
        "power_state",
        "properties",
        "protected",
        "protected_reason",
        "provision_state",
        "provision_updated_at",
        "raid_config",
        "raid_interface",
        "rescue_interface",
        "reservation",
        "resource_class",
        "retired",
        "retired_reason",
        "states",
        "storage_interface",
        "target_power_state",
        "target_provision_state",
        "target_raid_config",
        "traits",
        "updated_at",
        "uuid",
        "vendor_interface",
    ] {
        assert!(created.body.get(key).is_some(), "no {key}");
    }
    assert_eq!(created.body["provision_state"], "enroll");
    assert_eq!(created.body["driver_info"], json!({ "ipmi_password": "******", "x": 1 }));
    for ident in ["n1".to_owned(), uuid.clone(), uuid.to_uppercase()] {
        assert_eq!(bench.get(&format!("/v1/nodes/{ident}/")).await.body["uuid"], uuid);
    }
    let list = bench.get("/v1/nodes").await.body;
    assert_eq!(
        keys(&list["nodes"][0]),
        ["instance_uuid", "links", "maintenance", "name", "power_state", "provision_state", "uuid"]
    );
    let some = bench.get("/v1/nodes?fields=name,extra").await.body;
    assert_eq!(keys(&some["nodes"][0]), ["extra", "links", "name"]);
    let states = bench.get("/v1/nodes/n1/states").await.body;
    assert_eq!((&states["provision_state"], &states["last_error"]), (&json!("enroll"), &Value::Null));
    for (method, path, body, status) in [
        (Method::POST, "/v1/nodes", json!({"name": "n1", "driver": "fake"}), 409),
        (Method::POST, "/v1/nodes", json!({"uuid": uuid, "driver": "fake"}), 409),
        (Method::POST, "/v1/nodes", json!({"name": "n2"}), 400),
        (Method::POST, "/v1/nodes", json!({"name": "n2", "driver": "nosuch"}), 400),
        (
            Method::POST,
            "/v1/nodes",
            json!({"name": "n2", "driver": "fake", "provision_state": "active"}),
            400,
        ),
        (Method::POST, "/v1/nodes", json!({"name": "two words", "driver": "fake"}), 400),
        (
            Method::PATCH,
            "/v1/nodes/n1",
            json!([{"op": "replace", "path": "/driver", "value": "nosuch"}]),
            400,
        ),
        (Method::PATCH, "/v1/nodes/absent", json!([]), 404),
        (Method::PUT, "/v1/nodes/n1/states/provision", json!({"target": "fly"}), 400),
        (Method::PUT, "/v1/nodes/n1/states/provision", json!({"target": "active"}), 400),
        (Method::PUT, "/v1/nodes/n1/states/power", json!({"target": "sideways"}), 400),
        (Method::GET, "/v1/nodes?provision_state=nowhere", json!({}), 400),
        (Method::GET, "/v2/nodes", json!({}), 404),
        (Method::PUT, "/v1/nodes", json!({}), 405),
        (Method::POST, "/v1/ports", json!({"address": "x", "node_uuid": uuid}), 400),
        (Method::POST, "/v1/ports", json!({"address": MAC, "node_uuid": "absent"}), 400),
    ] {
        let reply = bench.call(method, path, Some("1.68"), Some(body.clone())).await;
        assert_eq!(reply.status, status, "{path} {body}: {}", reply.text);
        assert!(reply.body["error_message"].is_string(), "{path} {body}: {}", reply.text);
    }
    assert_eq!(bench.get("/v1/nodes/n1").await.body["driver"], "fake");
    let refused = bench
        .call(Method::PUT, "/v1/nodes/n1/states/provision", Some("1.68"), Some(json!({"target": "provide"})))
        .await;
    assert!(
        refused.fault().contains("while it is in state \"enroll\" (possible from: manageable)"),
        "{}",
        refused.fault()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_have_ironics_fields_and_belong_to_one_node() {
    let bench = Bench::new(BootMode::Uefi).await;
    let uuid = bench.enroll().await;
    let ports = bench.get("/v1/ports?node=demo").await.body;
    assert_eq!(
        keys(&ports["ports"][0]),
        [
            "address",
            "created_at",
            "extra",
            "internal_info",
            "is_smartnic",
            "links",
            "local_link_connection",
            "name",
            "node_uuid",
            "physical_network",
            "portgroup_uuid",
            "pxe_enabled",
            "updated_at",
            "uuid",
        ]
    );
    let again = json!({ "address": "52-54-00-AA-BB-01", "node_uuid": uuid });
    let taken = bench.call(Method::POST, "/v1/ports", Some("1.68"), Some(again)).await;
    assert_eq!(taken.status, 409);
    assert!(taken.fault().contains(MAC), "{}", taken.fault());
    let gone = bench.call(Method::DELETE, "/v1/ports/52:54:00:AA:BB:01", Some("1.68"), None).await;
    assert_eq!(gone.status, 204);
    assert_eq!(bench.get("/v1/nodes/demo/ports").await.body, json!({ "ports": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_served_whole_and_in_parts() {
    let bench = Bench::new(BootMode::Uefi).await;
    let path = bench.directory.path().join("images/disk.raw");
    std::fs::write(&path, b"0123456789").unwrap();
    let url = format!("{}/images/disk.raw", bench.url);
    let whole = bench.http.get(&url).send().await.unwrap();
    let etag = whole.headers()[ETAG].to_str().unwrap().to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'));
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    assert_eq!(whole.bytes().await.unwrap().as_ref(), b"0123456789");
    let head = bench.http.head(&url).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "10"));
    let part = bench.http.get(&url).header(RANGE, "bytes=4-").header(IF_RANGE, &etag).send().await.unwrap();
    assert_eq!(
        (part.status().as_u16(), part.headers()[CONTENT_RANGE].to_str().unwrap()),
        (206, "bytes 4-9/10")
    );
    assert_eq!(part.bytes().await.unwrap().as_ref(), b"456789");
    let beyond = bench.http.get(&url).header(RANGE, "bytes=10-").send().await.unwrap();
    assert_eq!(
        (beyond.status().as_u16(), beyond.headers()[CONTENT_RANGE].to_str().unwrap()),
        (416, "bytes */10")
    );
    // Another content: the tag changes, and a part of the old one is not to be had.
    std::fs::write(&path, b"abcdefghijk").unwrap();
    let other = bench.http.get(&url).header(RANGE, "bytes=4-").header(IF_RANGE, &etag).send().await.unwrap();
    assert_eq!(other.status().as_u16(), 200);
    assert_ne!(other.headers()[ETAG], etag.as_str());
    assert_eq!(other.bytes().await.unwrap().as_ref(), b"abcdefghijk");
    for outside in [
        "/images/../ferric.sqlite",
        "/images/%2e%2e/ferric.sqlite",
        "/images/..%2fferric.sqlite",
        "/images/absent",
    ] {
        assert_eq!(bench.get(outside).await.status, 404, "{outside}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_get_an_address_where_they_are_or_by_upload() {
    let bench = Bench::new(BootMode::Uefi).await;
    let served = bench.directory.path().join("images/a b.raw");
    std::fs::write(&served, b"x").unwrap();
    let path = served.to_str().unwrap().replace(' ', "%20");
    let found = bench.get(&format!("/ferric/v1/images?path={path}")).await.body;
    assert_eq!(found["url"], format!("{}/images/a%20b.raw", bench.url));
    assert_eq!(bench.get("/ferric/v1/images?path=/etc/passwd").await.body["url"], Value::Null);
    let up = bench
        .http
        .put(format!("{}/ferric/v1/images/up.raw", bench.url))
        .body("uploaded")
        .send()
        .await
        .unwrap();
    assert_eq!(up.status().as_u16(), 201);
    assert_eq!(bench.get("/images/up.raw").await.text, "uploaded");
    for bad in [".hidden", "..", "a%2fb"] {
        let reply =
            bench.http.put(format!("{}/ferric/v1/images/{bad}", bench.url)).body("x").send().await.unwrap();
        assert!(reply.status().is_client_error(), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_get_the_ramdisk_only_while_something_is_done_to_them() {
    let bench = Bench::new(BootMode::Uefi).await;
    bench.available().await;
    let script = async || bench.get("/boot/boot.ipxe?mac=52-54-00-aa-bb-01").await.text;
    assert!(script().await.contains("own disk"));
    assert!(bench.get("/boot/boot.ipxe?mac=52-54-00-00-00-99").await.text.contains("ferric port create"));
    assert!(bench.get("/boot/boot.ipxe").await.text.contains("${netX/mac:hexhyp}"));
    assert_eq!(bench.get("/boot/boot.ipxe?mac=x").await.status, 400);
    bench
        .controller
        .store
        .update("demo", |record| {
            record.boot = crate::record::BootDevice::Pxe;
            Ok(())
        })
        .await
        .unwrap();
    let text = script().await;
    assert!(text.contains("fake=1") && text.contains("ipa-api-url="), "{text}");
    assert_eq!(bench.get("/boot/52-54-00-aa-bb-01/kernel").await.text, "the kernel");
    assert_eq!(bench.get("/boot/52-54-00-aa-bb-01/initramfs").await.text, "the initramfs");
    assert_eq!(bench.get("/boot/kernel").await.text, "the kernel");
    assert_eq!(bench.get("/boot/52-54-00-aa-bb-01/ferric.sqlite").await.status, 404);
    assert_eq!(bench.marks().await, ["boot script", "kernel"]);
}
