//! What the configuration says to the hardware managers.

use hardware_managers::{Containers, Credentials, Partitioning, RootVolumes, Settings, Signatures};
use imaging::{DecoderMemory, Transport};

use super::Config;

impl Config {
    /// The settings of the built-in managers. Lookup changes some of the options: ask again after it.
    pub fn hardware_settings(&self) -> Settings {
        let basic = self.image_server_auth_strategy.value == "http_basic";
        let user = self.image_server_user.value.clone().filter(|_| basic);
        let image_server = user.zip(self.image_server_password.value.clone());
        Settings {
            allow: self.disks.value.0.clone(),
            transport: self.image_transport(),
            image_server: image_server.map(|(user, password)| Credentials { user, password }),
            md5_enabled: *self.md5_enabled,
            permitted_formats: self.permitted_image_formats.value.clone(),
            disk_wait_attempts: (*self.disk_wait_attempts).max(1),
            disk_wait_delay: *self.disk_wait_delay,
            ignore_bootloader_failure: self.ignore_bootloader_failure.unwrap_or(false),
            root_volumes: RootVolumes::new(),
            boot_interface: self.boot_interface.value.clone(),
            lldp_timeout: self.lldp_timeout.0,
            collect_lldp: *self.collect_lldp,
            skip_bmc_detect: *self.agent_skip_bmc_detect,
            disable_deep_image_inspection: *self.disable_deep_image_inspection,
            translate_sector_size: *self.translate_sector_size,
            verify_writes: *self.verify_writes,
            signatures: self.signatures(),
            enable_bios_bootloader_install: *self.enable_bios_bootloader_install,
            config_drive_rebuild: *self.config_drive_rebuild,
            guard_special_filesystems: *self.guard_special_filesystems,
            erase_stall_limit: **self.erase_stall_limit,
            disable_bootc_deploy: *self.disable_bootc_deploy,
            inject_files_priority: self.inject_files_priority.0,
            partitioning: self.partitioning(),
            containers: self.containers(),
        }
    }

    /// What the options say about signatures of images.
    pub fn signatures(&self) -> Signatures {
        Signatures { require: *self.require_signature, keys: self.image_keys.0.clone() }
    }

    fn partitioning(&self) -> Partitioning {
        Partitioning {
            efi_system_mib: self.efi_system_partition_size.get(),
            bios_boot_mib: self.bios_boot_partition_size.get(),
            detection_attempts: self.partition_detection_attempts.get(),
            reread_attempts: self.partprobe_attempts.get(),
            busy_interval: *self.check_device_interval,
            busy_retries: *self.check_device_max_retries,
        }
    }

    fn containers(&self) -> Containers {
        Containers {
            allow_arbitrary: *self.container_allow_arbitrary,
            allowed: self.container_allowed.value.clone(),
            steps_file: self.container_steps_file.value.clone(),
            runner: self.container_runner.program().to_owned(),
            pull_options: self.container_pull_options.value.clone(),
            run_options: self.container_run_options.value.clone(),
        }
    }

    fn image_transport(&self) -> Transport {
        let files = self.certfile.value.clone().zip(self.keyfile.value.clone());
        Transport {
            ca_file: self.cafile.value.clone(),
            insecure: *self.insecure,
            minimum_tls: *self.tls_min_version,
            cipher_suites: self.tls_cipher_suites.value.clone(),
            connect_timeout: **self.image_download_connection_timeout,
            attempts: self.image_download_connection_retries.saturating_add(1),
            digest_attempts: self.image_download_connection_retries.saturating_add(1),
            retry_interval: *self.image_download_connection_retry_interval,
            max_duration: Some(*self.image_download_max_duration).filter(|limit| !limit.is_zero()),
            client_certificate: files.map(|(certificate, key)| tls::Identity { certificate, key }),
            decoder_memory: self
                .image_decoder_memory
                .map_or(DecoderMemory::default(), |mib| DecoderMemory::Limit(u64::from(mib.get()) << 20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Origin, Overrides};
    use super::*;
    use crate::cmdline::Cmdline;

    const KEY: &str = "RWSYWcLIKzy/8wlBPhrl3mFxrN7r//AIoC83Gx6QZpRBHLx16IJmMAKU";

    #[test]
    fn options_and_lookup_reach_the_hardware_managers() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let values = vec![
            pair("image_server_auth_strategy", "http_basic"),
            pair("image_server_user", "u"),
            pair("image_server_password", "p"),
            pair("image_download_connection_retries", "2"),
            pair("insecure", "true"),
        ];
        let overrides = Overrides { values, ..Overrides::default() };
        let host = sys::fake::host("/nonexistent");
        let cmdline = Cmdline::parse(
            "ferric-disks=vda,serial:A* ipa-disk-wait-attempts=0 ferric-image-decoder-memory=100",
        );
        let (mut config, _) = Config::load(&host, &cmdline, &overrides).unwrap();
        assert_eq!(config.disks.origin, Origin::Kernel("ferric-disks"));
        let before = config.hardware_settings();
        assert_eq!(before.allow.as_ref().unwrap().to_string(), "/dev/vda,serial:A*");
        assert_eq!(before.image_server.as_ref().unwrap().user, "u");
        assert_eq!((before.transport.attempts, before.transport.insecure), (3, true));
        assert_eq!(before.transport.decoder_memory, DecoderMemory::Limit(100 << 20));
        assert_eq!((before.disk_wait_attempts, before.transport.minimum_tls), (1, tls::Version::V1_2));
        let reply = serde_json::json!({"heartbeat_timeout": 1, "tls_min_version": "1.3", "agent_md5_checksum_enable": false});
        config.apply_lookup(&serde_json::from_value(reply).unwrap());
        let after = config.hardware_settings();
        assert_eq!((after.md5_enabled, after.transport.minimum_tls), (false, tls::Version::V1_3));
    }

    #[test]
    fn the_defaults_of_the_options_are_those_of_the_managers() {
        let (from_options, own) = (Config::default().hardware_settings(), Settings::default());
        assert_eq!(from_options.partitioning, own.partitioning);
        assert_eq!(from_options.containers, own.containers);
        assert_eq!(from_options.permitted_formats, own.permitted_formats);
        assert_eq!(from_options.guard_special_filesystems, own.guard_special_filesystems);
        assert_eq!(from_options.disk_wait_delay, own.disk_wait_delay);
        assert_eq!(from_options.erase_stall_limit, own.erase_stall_limit);
        assert_eq!(from_options.transport.decoder_memory, own.transport.decoder_memory);
    }

    #[test]
    fn a_kernel_parameter_does_not_take_back_what_a_file_of_the_ramdisk_requires() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/ironic-python-agent.d")).unwrap();
        let file = root.path().join("etc/ironic-python-agent.d/sign.conf");
        std::fs::write(file, format!("require_signature = true\nimage_keys = {KEY}\n")).unwrap();
        let other = KEY.replace("RWSY", "RWSZ");
        let cmdline = Cmdline::parse(&format!("ferric-require-signature=0 ferric-image-keys={other}"));
        let host = sys::fake::host(root.path());
        let (config, _) = Config::load(&host, &cmdline, &Overrides::default()).unwrap();
        let signatures = config.hardware_settings().signatures;
        assert!(signatures.require);
        assert_eq!(signatures.keys.0, [KEY.parse().unwrap()]);
        // Alone, it counts.
        let (config, _) =
            Config::load(&sys::fake::host("/nonexistent"), &cmdline, &Overrides::default()).unwrap();
        assert_eq!(config.signatures().keys.0, [other.parse().unwrap()]);
    }

    #[test]
    fn a_senseless_key_is_an_error_and_never_means_no_key() {
        let host = sys::fake::host("/nonexistent");
        for bad in ["ferric-image-keys=", "ferric-image-keys=,", "ferric-image-keys=/etc/key.pub"] {
            let loaded = Config::load(&host, &Cmdline::parse(bad), &Overrides::default());
            assert!(loaded.is_err(), "{bad}");
        }
    }

    #[test]
    fn a_senseless_list_of_disks_is_an_error_and_never_means_all_disks() {
        let host = sys::fake::host("/nonexistent");
        for bad in ["ferric-disks=", "ferric-disks=,", "ferric-disks=/dev/*"] {
            let loaded = Config::load(&host, &Cmdline::parse(bad), &Overrides::default());
            assert!(loaded.is_err(), "{bad}");
        }
    }
}
