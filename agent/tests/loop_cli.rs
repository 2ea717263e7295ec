//! The offline subcommands as a user runs them: exit codes, what stands on stdout, and that nothing but the allowed disk is
//! touched.

// The binary under test is run as a user would run it; clippy does not see that all of this is a test.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../../hardware-managers/tests/support/mod.rs"]
mod support;

use std::io::Read;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{DISK_BYTES, Loop, MIB, config_drive, file, image, registry, serve, sha256};

fn agent(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ferric-agent"))
        .args(arguments)
        .env_remove("FERRIC_DISKS")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

#[test]
fn loop_write_writes_verifies_and_reports_as_data() {
    let Some(disk) = Loop::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let image = image();
    let url = format!("{}/test.raw", serve(vec![("test.raw", image.clone())]));
    let drive = file(directory.path(), "drive.iso", &config_drive());
    let output = agent(&[
        "write",
        "--url",
        &url,
        "--sha256",
        &sha256(&image),
        "--format",
        "raw",
        "--disks",
        disk.name(),
        "--config-drive",
        drive.to_str().unwrap(),
        "--progress",
        "json",
        disk.name(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = lines(&output);
    let summary = lines.last().unwrap();
    assert_eq!(summary["event"], "written");
    assert_eq!(summary["device"], disk.name());
    assert_eq!(summary["root_uuid"], "0x1a2b3c4d");
    assert_eq!(summary["published_bytes"], image.len());
    assert_eq!(summary["config_drive"], true);
    assert!(lines.iter().any(|line| line["event"] == "phase_finished" && line["phase"] == "commit"));
    assert_eq!(disk.read(512, image.len() - 512), image[512..]);
    assert_eq!(disk.read(DISK_BYTES - 64 * MIB as u64, config_drive().len()), config_drive());
}

#[test]
fn loop_write_without_progress_prints_the_summary_only() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    let url = format!("{}/test.raw", serve(vec![("test.raw", image.clone())]));
    let digest = format!("sha256:{}", sha256(&image));
    let output = agent(&["write", "--url", &url, "--checksum", &digest, "--disks", disk.name(), disk.name()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(lines(&output).len(), 1);
    assert_eq!(disk.read(0, image.len()), image);
}

#[test]
fn loop_write_is_refused_where_no_list_allows_the_disk() {
    let (Some(disk), Some(other)) = (Loop::new(), Loop::new()) else { return };
    let image = image();
    let url = format!("{}/test.raw", serve(vec![("test.raw", image.clone())]));
    let digest = sha256(&image);
    for allowed in [vec![], vec!["--disks", other.name()], vec!["--disks", "serial:*"]] {
        let arguments =
            [&["write", "--url", &url, "--sha256", &digest][..], &allowed, &[disk.name()]].concat();
        let output = agent(&arguments);
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert!(stderr(&output).contains(disk.name()) && output.stdout.is_empty());
        assert!(disk.is_untouched() && other.is_untouched());
    }
}

#[test]
fn loop_every_failure_has_its_exit_code() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    let server = serve(vec![("test.raw", image.clone())]);
    let (good, absent) = (format!("{server}/test.raw"), format!("{server}/absent"));
    let (right, wrong) = (sha256(&image), "5".repeat(64));
    let cases = [
        (&good, right.as_str(), "qcow2", 7, "qcow2"),
        (&absent, right.as_str(), "raw", 4, "404"),
        (&good, "abc", "raw", 2, "abc"),
        (&good, wrong.as_str(), "raw", 5, right.as_str()),
    ];
    for (url, digest, format, code, word) in cases {
        let output = agent(&[
            "write",
            "--url",
            url,
            "--sha256",
            digest,
            "--format",
            format,
            "--disks",
            disk.name(),
            disk.name(),
        ]);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(word), "{word} is missing: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    assert!(disk.has_zeroed_head(), "after the wrong digest");
    let output = agent(&["write", "--url", &good, "--disks", disk.name(), disk.name()]);
    assert_eq!(output.status.code(), Some(2), "a digest is mandatory");
}

#[test]
fn loop_write_takes_files_registries_and_several_places() {
    let Some(disk) = Loop::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let image = image();
    let local = file(directory.path(), "test.raw", &image);
    let sums = file(directory.path(), "SHA256SUMS", format!("{}  test.raw\n", sha256(&image)).as_bytes());
    let password = file(directory.path(), "auth", b"user:hush");
    let by_file = format!("file://{}", local.display());
    let by_sums = format!("file://{}", sums.display());
    let by_tag = format!("oci://{}:v1", registry(&image));
    let absent = format!("{}/absent.raw", serve(vec![]));
    let wrong = format!("{}/test.raw", serve(vec![("test.raw", vec![7; 8 * MIB])]));
    let digest = sha256(&image);
    let cases = [
        (vec!["--url", &by_file, "--checksum", &by_sums], &by_file),
        (vec!["--url", &by_tag, "--sha256", &digest], &by_tag),
        (vec!["--url", &by_tag, "--auth", password.to_str().unwrap(), "--checksum", &digest], &by_tag),
        (vec!["--url", &absent, "--url", &by_file, "--sha256", &digest], &by_file),
        (vec!["--url", &wrong, "--url", &by_file, "--format", "raw", "--sha256", &digest], &by_file),
    ];
    for (arguments, source) in cases {
        let output = agent(&[&["write"][..], &arguments, &["--disks", disk.name(), disk.name()]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        let told = lines(&output).remove(0)["source"].as_str().unwrap().to_owned();
        assert!(source.ends_with(&told), "{source}: {told}");
        assert_eq!(disk.read(0, image.len()), image);
    }
    let output = agent(&["write", "--url", &by_tag, "--disks", disk.name(), disk.name()]);
    assert_eq!(output.status.code(), Some(0), "the manifest has a digest: {}", stderr(&output));
    let summary = lines(&output).remove(0);
    assert_eq!(summary["digest"], format!("sha256:{digest}"));
    assert!(summary["source"].as_str().unwrap().contains("@sha256:"), "{summary}");
    let two = ["write", "--url", &absent, "--url", &wrong, "--sha256", &digest];
    let output = agent(&[&two[..], &["--auth", password.to_str().unwrap(), disk.name()]].concat());
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("one host") && !stderr(&output).contains("hush"));
}

/// A zstd frame with a window of 128 MiB, as `zstd --long=27` announces it, and its content in raw blocks.
fn long_window(content: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3];
    let mut blocks = content.chunks(128 * 1024).peekable();
    while let Some(block) = blocks.next() {
        let last = u32::from(blocks.peek().is_none());
        let header = u32::try_from(block.len()).unwrap() << 3 | last;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(block);
    }
    frame
}

#[test]
fn loop_write_unpacks_in_as_much_memory_as_it_is_given() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    let published = long_window(&image);
    let url = format!("{}/test.raw.zst", serve(vec![("test.raw.zst", published.clone())]));
    let digest = sha256(&published);
    let before = disk.read(0, MIB);
    let write = |memory: &str| {
        let fixed = ["write", "--url", &url, "--sha256", &digest, "--format", "raw", "--disks", disk.name()];
        agent(&[&fixed[..], &["--memory", memory, disk.name()]].concat())
    };
    let output = write("100");
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    for part in ["129 MiB", "100 MiB", "--memory"] {
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
    assert!(disk.read(0, MIB) == before, "nothing was written");
    let output = write("129");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(disk.read(0, image.len()) == image);
    assert_eq!(write("0").status.code(), Some(2));
}

#[test]
fn loop_write_accepts_a_disk_without_a_table_only_where_it_is_allowed() {
    let Some(disk) = Loop::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut image = image();
    image[510..512].fill(0);
    let url = format!("file://{}", file(directory.path(), "data.raw", &image).display());
    let drive = file(directory.path(), "drive.iso", &config_drive());
    let digest = sha256(&image);
    let write = |more: &[&str]| {
        let fixed = ["write", "--url", &url, "--sha256", &digest, "--disks", disk.name()];
        agent(&[&fixed[..], more, &[disk.name()]].concat())
    };
    let output = write(&[]);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(stderr(&output).contains("--allow-no-partition-table"), "{}", stderr(&output));
    let output = write(&["--allow-no-partition-table"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(lines(&output).remove(0)["partitions"], 0);
    assert!(disk.read(0, image.len()) == image);
    let drive = ["--config-drive", drive.to_str().unwrap()];
    assert_eq!(write(&[&["--allow-no-partition-table"][..], &drive].concat()).status.code(), Some(2));
}

#[test]
fn loop_write_uses_the_proxies_of_the_environment() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    // A proxy is asked for the whole URL; the origin does not exist.
    let proxy = serve(vec![("http://images.invalid/test.raw", image.clone())]);
    let run = |exempt: &str| {
        Command::new(env!("CARGO_BIN_EXE_ferric-agent"))
            .args(["write", "--url", "http://images.invalid/test.raw", "--sha256", &sha256(&image)])
            .args(["--disks", disk.name(), disk.name()])
            .envs([("http_proxy", proxy.as_str()), ("no_proxy", exempt)])
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    };
    assert_eq!(run("").wait().unwrap().code(), Some(0));
    assert_eq!(disk.read(0, image.len()), image);
    // It goes on trying for a while; that it does not succeed at once is enough.
    let mut exempted = run("images.invalid");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(exempted.try_wait().unwrap().is_none());
    exempted.kill().unwrap();
    exempted.wait().unwrap();
}

#[test]
fn loop_interrupt_stops_the_write_and_says_that_the_disk_does_not_boot() {
    let Some(disk) = Loop::new() else { return };
    // A server that sends half of an image and then nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/slow.raw", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                use std::io::Write;
                let _ = stream.read(&mut [0; 4096]);
                let length = 8 * MIB;
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                let _ = stream.write_all(&image()[..4 * MIB]);
                std::thread::sleep(std::time::Duration::from_secs(60));
            });
        }
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_ferric-agent"))
        .args(["write", "--url", &url, "--sha256", &"5".repeat(64), "--format", "raw", "--progress", "json"])
        .args(["--disks", disk.name(), disk.name()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = Vec::new();
    let mut stdout = child.stdout.take().unwrap();
    while !String::from_utf8_lossy(&seen).contains("\"phase\":\"write\"") {
        let mut byte = [0; 1];
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "ended early: {}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    let pid = child.id().to_string();
    assert!(Command::new("/bin/kill").args(["-INT", &pid]).status().unwrap().success());
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("does not boot"), "{}", stderr(&output));
    assert!(disk.has_zeroed_head());
}

#[test]
fn loop_explain_tells_the_choice_and_touches_nothing() {
    let Some(disk) = Loop::new() else { return };
    let hints = format!("{{\"name\": \"{}\"}}", disk.name());
    let output = agent(&["explain", "--json", "--hints", &hints, "--disks", disk.name()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let value = lines(&output).remove(0);
    assert_eq!(value["chosen"], disk.name());
    let disks = value["disks"].as_array().unwrap();
    let chosen = disks.iter().find(|d| d["chosen"] == true).unwrap();
    assert_eq!(
        (&chosen["writable"], &chosen["disk"]["size"]),
        (&Value::from(true), &Value::from(DISK_BYTES))
    );
    assert!(disks.iter().all(|d| d["chosen"] == true || d["writable"] == false), "{value}");

    let text = agent(&["explain", "--hints", &hints, "--disks", disk.name()]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains(&format!("=> {}", disk.name())) && text.contains("would destroy"), "{text}");
    assert!(disk.is_untouched());
    assert_eq!(agent(&["explain", "--hints", "serial=x"]).status.code(), Some(2));
    let unknown = agent(&["explain", "--hints", "{\"colour\": \"red\"}"]);
    assert_ne!(unknown.status.code(), Some(0));
    assert!(stderr(&unknown).contains("colour"));
}

#[test]
fn inventory_is_json_with_the_shape_of_the_wire() {
    for arguments in [&["inventory"][..], &["inventory", "--pretty"]] {
        let output = agent(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let inventory: wire::Inventory = serde_json::from_slice(&output.stdout).unwrap();
        assert!(inventory.cpu.count > 0);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count() > 1, arguments.len() > 1);
    }
}
