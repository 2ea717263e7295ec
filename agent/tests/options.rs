//! The options of ironic-python-agent, as its own table has them: section, name, kernel parameter, default, and values that are
//! out of bounds. Source: ironic-python-agent `config.py`, `mdns.py`, metrics and container options (agent protocol page, 5.4).
#![allow(clippy::unwrap_used, clippy::panic)]

use ferric_agent::cmdline::Cmdline;
use ferric_agent::config::{Config, Error, OPTIONS, Origin, Overrides, Row};

/// Section, name, kernel parameter (`-`: none), default as shown (`-`: unset), bad values separated by `|`.
const TABLE: &[(&str, &str, &str, &str, &str)] = &[
    ("DEFAULT", "api_url", "ipa-api-url", "", "ftp://x|192.0.2.1|mdns,http://x"),
    ("DEFAULT", "global_request_id", "ipa-global-request-id", "-", ""),
    ("DEFAULT", "listen_host", "ipa-listen-host", "-", ""),
    ("DEFAULT", "listen_port", "ipa-listen-port", "9999", "65536|-1|http"),
    ("DEFAULT", "listen_tls", "-", "false", "2|maybe"),
    ("DEFAULT", "tls_cert_file", "-", "-", ""),
    ("DEFAULT", "tls_key_file", "-", "-", ""),
    ("DEFAULT", "enable_auto_tls", "-", "true", "x"),
    ("DEFAULT", "auto_tls_allowed_clock_skew", "-", "3600", "-1|1.5"),
    ("DEFAULT", "tls_min_version", "ipa-tls-min-version", "1.2", "1.1|1.4|TLSv1.2"),
    ("DEFAULT", "tls_cipher_suites", "ipa-tls-cipher-suites", "-", "RC4-SHA|!ALL"),
    ("DEFAULT", "tls_certificate_curve", "ipa-tls-certificate-curve", "p384", "p224|ed25519"),
    ("DEFAULT", "advertise_host", "ipa-advertise-host", "-", ""),
    ("DEFAULT", "advertise_port", "ipa-advertise-port", "9999", "99999"),
    ("DEFAULT", "advertise_protocol", "ipa-advertise-protocol", "http", "ftp|HTTP"),
    ("DEFAULT", "ip_lookup_attempts", "ipa-ip-lookup-attempts", "6", "0|-1"),
    ("DEFAULT", "ip_lookup_sleep", "ipa-ip-lookup-timeout", "10", "-1"),
    ("DEFAULT", "network_interface", "ipa-network-interface", "-", ""),
    ("DEFAULT", "lookup_timeout", "ipa-lookup-timeout", "600", "-1|forever"),
    ("DEFAULT", "lookup_interval", "ipa-lookup-interval", "1", "-1"),
    ("DEFAULT", "lldp_timeout", "ipa-lldp-timeout", "30", "long|-1|inf"),
    ("DEFAULT", "collect_lldp", "ipa-collect-lldp", "false", "please"),
    ("DEFAULT", "inspection_callback_url", "ipa-inspection-callback-url", "-", ""),
    ("DEFAULT", "inspection_collectors", "ipa-inspection-collectors", "-", ""),
    ("DEFAULT", "inspection_dhcp_wait_timeout", "ipa-inspection-dhcp-wait-timeout", "60", "-1"),
    ("DEFAULT", "inspection_dhcp_all_interfaces", "ipa-inspection-dhcp-all-interfaces", "false", "x"),
    ("DEFAULT", "hardware_initialization_delay", "ipa-hardware-initialization-delay", "0", "-1"),
    ("DEFAULT", "disk_wait_attempts", "ipa-disk-wait-attempts", "10", "-1"),
    ("DEFAULT", "disk_wait_delay", "ipa-disk-wait-delay", "3", "-1"),
    ("DEFAULT", "insecure", "ipa-insecure", "false", "no way"),
    ("DEFAULT", "cafile", "-", "-", ""),
    ("DEFAULT", "certfile", "-", "-", ""),
    ("DEFAULT", "keyfile", "-", "-", ""),
    ("DEFAULT", "introspection_daemon", "-", "false", "x"),
    ("DEFAULT", "introspection_daemon_post_interval", "-", "300", "x"),
    ("DEFAULT", "ntp_server", "ipa-ntp-server", "-", ""),
    ("DEFAULT", "fail_if_clock_not_set", "-", "false", "x"),
    ("DEFAULT", "agent_token", "ipa-agent-token", "-", ""),
    ("DEFAULT", "image_server_user", "-", "-", ""),
    ("DEFAULT", "image_server_password", "-", "-", ""),
    ("DEFAULT", "image_server_auth_strategy", "-", "noauth", ""),
    ("DEFAULT", "image_download_connection_timeout", "ipa-image-download-connection-timeout", "60", "0|-1"),
    ("DEFAULT", "image_download_connection_retries", "ipa-image-download-connection-retries", "9", "-1"),
    (
        "DEFAULT",
        "image_download_connection_retry_interval",
        "ipa-image-download-connection-retry-interval",
        "10",
        "-1",
    ),
    ("DEFAULT", "image_download_max_duration", "ipa-image-download-max-duration", "0", "-1"),
    ("DEFAULT", "ironic_api_version", "ipa-ironic-api-version", "-", "1|latest"),
    ("DEFAULT", "enable_vlan_interfaces", "ipa-enable-vlan-interfaces", "", ""),
    ("DEFAULT", "ignore_bootloader_failure", "ipa-ignore-bootloader-failure", "-", "x"),
    ("DEFAULT", "inject_files_priority", "ipa-inject-files-priority", "0", "100|-1"),
    ("DEFAULT", "guard_special_filesystems", "ipa-guard-special-filesystems", "true", "x"),
    ("DEFAULT", "md5_enabled", "-", "true", "x"),
    ("DEFAULT", "http_request_timeout", "ipa-http-request-timeout", "30", "0|-1"),
    ("DEFAULT", "config_drive_rebuild", "-", "false", "x"),
    ("DEFAULT", "disable_deep_image_inspection", "-", "false", "x"),
    ("DEFAULT", "permitted_image_formats", "-", "raw,gpt,qcow2", ""),
    ("DEFAULT", "disable_bootc_deploy", "-", "false", "x"),
    ("DEFAULT", "enable_bios_bootloader_install", "-", "false", "x"),
    ("disk_utils", "efi_system_partition_size", "-", "550", "0|big"),
    ("disk_utils", "bios_boot_partition_size", "-", "1", "0"),
    ("disk_utils", "dd_block_size", "-", "1M", ""),
    ("disk_utils", "partition_detection_attempts", "-", "3", "0"),
    ("disk_utils", "partprobe_attempts", "-", "10", "-1"),
    ("disk_utils", "image_convert_memory_limit", "-", "2048", "-1"),
    ("disk_utils", "image_convert_attempts", "-", "3", "-1"),
    ("disk_partitioner", "check_device_interval", "-", "1", "-1"),
    ("disk_partitioner", "check_device_max_retries", "-", "20", "-1"),
    ("metrics", "backend", "-", "noop", "graphite"),
    ("metrics", "prepend_host", "-", "false", "x"),
    ("metrics", "prepend_host_reverse", "-", "true", "x"),
    ("metrics", "global_prefix", "-", "-", ""),
    ("metrics_statsd", "statsd_host", "-", "localhost", ""),
    ("metrics_statsd", "statsd_port", "-", "8125", "70000"),
    ("container", "allow_arbitrary_containers", "-", "false", "x"),
    ("container", "allowed_containers", "-", "", ""),
    ("container", "container_steps_file", "-", "/etc/ironic-python-agent.d/mysteps.yaml", ""),
    ("container", "runner", "-", "podman", "rkt"),
    ("container", "pull_options", "-", "", ""),
    ("container", "run_options", "-", "--rm,--network=host", ""),
    ("mdns", "use_mdns", "ipa-use-mdns", "false", "x"),
    ("mdns", "allowed_overrides", "-", "inspection_callback_url,ntp_server", ""),
    ("mdns", "lookup_attempts", "-", "3", "0"),
    ("mdns", "params", "-", "-", ""),
    ("mdns", "interfaces", "-", "", ""),
    ("DEFAULT", "debug", "ipa-debug", "false", "2"),
    ("DEFAULT", "log_file", "-", "-", ""),
    ("DEFAULT", "log_dir", "-", "-", ""),
];

/// What ironic-python-agent takes as a kernel parameter or from lookup alone, without an option.
const BEYOND: &[&str] = &["boot_interface", "inspection_benchmarks", "agent_skip_bmc_detect"];

fn load(cmdline: &str, root: &std::path::Path) -> Result<Config, Error> {
    let host = sys::fake::host(root);
    Config::load(&host, &Cmdline::parse(cmdline), &Overrides::default()).map(|(config, _)| config)
}

fn row(config: &Config, section: &str, name: &str) -> Row {
    let wanted = |row: &Row| row.option.section == section && row.option.name == name;
    config.rows().into_iter().find(wanted).unwrap_or_else(|| panic!("there is no option [{section}] {name}"))
}

#[test]
fn every_option_has_its_section_kernel_parameter_and_default() {
    let config = Config::default();
    for (section, name, kernel, default, _) in TABLE {
        let row = row(&config, section, name);
        assert_eq!(row.option.kernel.unwrap_or("-"), *kernel, "{name}");
        assert_eq!(row.value, *default, "{name}");
        assert_eq!(row.origin, Origin::Default, "{name}");
    }
    // The rest is Ferric's own, and says so.
    let rest = OPTIONS.iter().filter(|option| {
        let in_table =
            TABLE.iter().any(|(section, name, ..)| (*section, *name) == (option.section, option.name));
        !in_table && !BEYOND.contains(&option.name)
    });
    for option in rest {
        assert!(option.kernel.is_some_and(|kernel| kernel.starts_with("ferric-")), "{}", option.full_name());
    }
}

#[test]
fn every_kernel_parameter_sets_its_option_and_a_file_beats_it() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    let file = root.path().join("etc/ironic-python-agent.conf");
    for (section, name, kernel, default, _) in TABLE.iter().filter(|(_, _, kernel, ..)| *kernel != "-") {
        let value = match (*default, *name) {
            (_, "api_url") => "http://192.0.2.1",
            (_, "tls_cipher_suites") => "ECDHE-RSA-AES256-GCM-SHA384",
            (_, "ironic_api_version") => "1.68",
            (_, "ignore_bootloader_failure") => "true",
            ("-" | "", _) => "a",
            (default, _) => default,
        };
        std::fs::write(&file, "").unwrap();
        let set = row(&load(&format!("{kernel}={value}"), root.path()).unwrap(), section, name);
        assert!(matches!(&set.origin, Origin::Kernel(by) if by == kernel), "{name}: {:?}", set.origin);
        std::fs::write(&file, format!("# comment\n[{section}]\n{name} = {value}\n")).unwrap();
        let set = row(&load(&format!("{kernel}={value}"), root.path()).unwrap(), section, name);
        match &set.origin {
            Origin::File { path, line: 3 } if *path == file => assert_ne!(*name, "debug"),
            Origin::Kernel("ipa-debug") => assert_eq!(*name, "debug"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn values_out_of_bounds_are_not_taken_and_named_by_option_and_place() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    let file = root.path().join("etc/ironic-python-agent.conf");
    for (section, name, _, _, bad) in TABLE {
        for value in bad.split('|').filter(|value| !value.is_empty()) {
            std::fs::write(&file, format!("[{section}]\n{name} = {value}\n")).unwrap();
            let host = sys::fake::host(root.path());
            let told = match Config::load(&host, &Cmdline::default(), &Overrides::default()) {
                Err(error) => error.to_string(),
                Ok((config, warnings)) => {
                    let kept = row(&config, section, name);
                    assert_eq!(kept.origin, Origin::Default, "{name} = {value} is taken: {}", kept.value);
                    warnings.join("\n")
                }
            };
            for part in [*name, value, "ironic-python-agent.conf:2", "correct it there"] {
                assert!(told.contains(part), "{part} is not in: {told}");
            }
        }
    }
}

/// The agent's sources without their tests and without the table itself.
fn sources(folder: &std::path::Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("config/options.rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            text.push_str(source.split("#[cfg(test)]").next().unwrap());
        }
    }
}

#[test]
fn an_option_that_nobody_reads_says_that_it_changes_nothing() {
    let mut text = String::new();
    sources(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut text);
    for option in OPTIONS {
        let field = format!(".{}", option.field);
        let is_word = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let is_read = text.match_indices(&field).any(|(at, _)| is_word(&text[at + field.len()..]));
        assert_eq!(is_read, option.without_effect.is_none(), "{}", option.full_name());
    }
}
